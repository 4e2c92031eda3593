"""All evaluations of one checkpoint: accuracies, topology scores and L_TP on the test set."""
