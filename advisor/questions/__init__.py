"""Questions that turn the estimate round: the largest model, the cards that hold a job, how far a batch and a sequence can go."""
