"""Named data sets as tensors; the split and the binarisation are part of the name.

    from hvae.data import load
    data = load("mnist-dynamic", n_train=10000, seed=0)

Reading order (each file imports only what stands above it):

    images      Dataset; grey, dynamic, threshold; random subsets
    idx         the file format of MNIST
    cifar       the archive of CIFAR-10
    files       where files are, checksums, downloads
    synthetic   data from known stacks, with their parameters
    names       what each name means
    formats     files of other people: .npy, .npz, .csv, .mat
    card        what is known of data, and what is refused
    user        a user's own file
    access      load, catalogue, get, verify
"""

from hvae.data.access import Record, catalogue, get, load, verify
from hvae.data.card import card_of, card_of_items
from hvae.data.images import Dataset

__all__ = ["Dataset", "Record", "card_of", "card_of_items", "catalogue", "get", "load", "verify"]
