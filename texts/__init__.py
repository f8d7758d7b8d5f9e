"""What training, evaluation and reliability share of texts: whether two are alike, what a reasoning says, filler."""
