"""Kill -9 a run of the tiny scale at random moments, and write what came of it to docs/reliability.md.

By hand: `make faults`, or `python tests/faults.py [--kills 20] [--studies alignment merging]`.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from conftest import made_checkout
from kills import ROLES, Kill, survive
from pipeline import MAKE, cached, content

PAGE = Path(__file__).parents[1] / "docs/reliability.md"


def published(checkout) -> dict[str, str]:
    """Digests of what was made; not of the manifest, which holds the seconds that it took."""
    made = content(checkout, "results/tiny", "figures/tiny")
    return {name: value for name, value in made.items() if not name.endswith("manifest.json")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--studies", nargs="*", default=[])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkout = made_checkout(Path(folder) / "checkout")
        if options.studies:
            checkout.study(*options.studies)
        command = (*MAKE, "SCALE=tiny")
        begun = time.monotonic()
        checkout.ok(*command)
        seconds, runs = time.monotonic() - begun, len(cached(checkout))
        undisturbed = published(checkout)
        for made in (".cache/runs", "results/tiny", "figures/tiny"):
            shutil.rmtree(checkout.root / made)
        rng = random.Random(options.seed)
        # Uniform in the number of runs, up to nine tenths of them: no kill comes after the end.
        places = sorted(rng.randrange(int(0.9 * runs)) for _ in range(options.kills))
        kills = [Kill(rng.choice(list(ROLES)), place, round(rng.random(), 2)) for place in places]
        found, again = survive(checkout, command, kills)
        same = published(checkout) == undisturbed
    verdict = "the same, byte for byte, as undisturbed" if same else "**not the same as undisturbed**"
    rows = [
        f"| {number} | {one.role} | {one.finished} | {len(one.orphans)} | {len(one.torn)} |"
        for number, one in enumerate(found, start=1)
    ]
    text = f"""# What kills do

Written by `make faults`. The studies at the scale `tiny`, {runs} runs, took {seconds / 60:.0f} minutes undisturbed.
Then they ran once more and were killed {len(kills)} times by `kill -9`, each time started again by the same command.
At the end results and figures were {verdict}.
Finished runs that were done again: {len(again)}.

| kill | killed | finished runs by then | processes left | torn records |
|--:|---|--:|--:|--:|
"""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text + "\n".join(rows) + "\n")
    sys.stdout.write(f"{PAGE}: {len(kills)} kills\n")
    if not same or again or any(one.orphans or one.torn for one in found):
        sys.exit("error: a kill left something behind; see docs/reliability.md")


if __name__ == "__main__":
    main()
