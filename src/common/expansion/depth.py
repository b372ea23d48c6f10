"""Ways to make a network deeper: which old layer each layer of the deeper one comes from, and what is done to it."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Layer:
    """A layer of the deeper network: a copy of the old layer `source`, one that adds nothing yet, or a random one.

    Weights of a layer that is `silent` are the source's but for those that write to the residual stream, which are
    zero; a `fresh` one has the source's shapes alone.
    """

    source: int
    kind: Literal["copy", "silent", "fresh"] = "copy"


DEPTHS = ("identity", "stack", "interpolate", "random")


def deeper(old: int, new: int, how: str) -> list[Layer]:
    """The layers of a network of `new` layers from one of `old`, from the bottom.

    - `identity`: new layers that add nothing yet, spread evenly, each after the one of which it is a copy but for its
      zero outputs (Wu et al. 2024, LLaMA Pro, arXiv 2401.02415; the identity is Net2DeeperNet's, arXiv 1511.05641);
    - `stack`: the whole stack again on top of itself (Gong et al. 2019, Efficient training of BERT by progressively
      stacking; bert2BERT, arXiv 2110.07143, section 4.3);
    - `interpolate`: each layer followed by its copies (Chang et al. 2018, arXiv 1710.10348);
    - `random`: fresh layers on top.
    """
    if how == "stack":
        return [Layer(place % old) for place in range(new)]
    if how == "random":
        return [Layer(min(place, old - 1), "copy" if place < old else "fresh") for place in range(new)]
    source = [place * old // new for place in range(new)]
    first = [place == 0 or source[place] != source[place - 1] for place in range(new)]
    repeated = "copy" if how == "interpolate" else "silent"
    return [Layer(layer, "copy" if new_one else repeated) for layer, new_one in zip(source, first, strict=True)]


def depth_preserves(how: str) -> bool:
    """Whether a deeper network of this kind computes what the old one did."""
    return how == "identity"
