"""One process trains and evaluates one run; it knows torch, and no screen, no database, no other run."""
