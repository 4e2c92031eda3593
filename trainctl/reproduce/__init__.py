"""The tables of the TRAIN paper (Mi et al., BMVC 2024): which runs they mean, and what came of them."""
