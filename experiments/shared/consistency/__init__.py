"""Whether encoder and decoder agree: distances of samples in the features of a classifier."""
