"""Numbers of the paper: Thakkar et al., arXiv 2406.04879, tables 2 to 6, as printed.

Columns are the paper's: MMLU accuracy, BBH exact match, AlpacaEval win rate in per cent, RT the mean reward of a
toxicity model on RealToxicity's severest prompts (higher is less toxic).
"""

from io import StringIO

import pandas as pd

STARTS = {"Mistral": "base", "LLaMA-1": "base", "Mistral-Instruct": "instruct", "Vicuna": "instruct"}
DATA = {"hh": "hh-like", "beavertails": "beavertails-like"}  # the original and what stands in for it
OURS = {"MMLU": "knowledge", "BBH": "exact", "AlpacaEval": "win_rate", "RT": "nontoxic"}

_TABLE_2 = """
model aim MMLU_sft BBH_sft RT_sft MMLU_dpo BBH_dpo RT_dpo
Mistral none .590 .395 1.255 .590 .395 1.255
Mistral harmless .583 .409 1.863 .590 .402 -3.701
Mistral helpful .589 .417 1.571 .594 .418 -9.375
Mistral mix .575 .408 1.239 .593 .412 -9.419
Mistral-Instruct none .535 .385 1.273 .535 .385 1.273
Mistral-Instruct harmless .518 .366 1.981 .529 .392 3.520
Mistral-Instruct helpful .519 .371 1.145 .535 .382 2.170
Mistral-Instruct mix .518 .367 0.991 .531 .374 -0.025
"""
_TABLE_3 = """
row BBH_base AlpacaEval_base RT_base MMLU_instruct AlpacaEval_instruct RT_instruct
harmless-sft .409 7.346 1.863 .518 7.711 1.981
helpful-sft .417 7.081 1.571 .519 8.095 1.145
harmless-dpo .402 3.975 -3.701 .529 13.043 3.520
helpful-dpo .418 3.602 -9.375 .535 15.299 2.170
slerp-sft .415 2.236 -9.115 .530 8.966 3.311
slerp-dpo .425 7.721 1.604 .524 8.209 1.873
dare-sft .419 7.472 1.870 .525 8.209 2.207
dare-dpo .428 2.981 -8.602 .534 15.702 3.717
dare-sft+dpo .432 6.468 1.755 .538 9.363 2.938
"""
_COLUMNS = "BBH_sft BBH_dpo MMLU_sft MMLU_dpo AlpacaEval_sft AlpacaEval_dpo RT_sft RT_dpo"
_TABLE_4 = f"""
data model aim {_COLUMNS}
hh Mistral-Instruct harmless .356 .378 .507 .527 2.239 4.738 0.533 2.662
hh Mistral-Instruct helpful .354 .380 .502 .530 2.488 8.853 0.563 1.907
hh Mistral harmless .402 .149 .554 .484 0.871 0.498 0.882 3.199
hh Mistral helpful .408 .397 .571 .583 2.369 3.095 1.055 3.234
hh LLaMA-1 harmless .316 .223 .302 .316 0.249 0.248 1.222 2.381
hh LLaMA-1 helpful .322 .280 .338 .325 0.373 2.224 1.224 1.352
hh Vicuna harmless .314 .331 .419 .460 2.236 9.559 0.033 4.682
hh Vicuna helpful .331 .335 .435 .456 3.731 8.577 1.639 1.884
beavertails Mistral-Instruct harmless .366 .392 .518 .529 7.711 13.043 1.981 3.520
beavertails Mistral-Instruct helpful .371 .382 .519 .535 8.095 15.299 1.145 2.170
beavertails Mistral harmless .409 .402 .583 .590 7.346 3.975 1.863 -3.701
beavertails Mistral helpful .417 .418 .589 .594 7.081 3.602 1.571 -9.375
beavertails LLaMA-1 harmless .321 .304 .341 .328 2.857 1.370 2.008 3.364
beavertails LLaMA-1 helpful .326 .311 .355 .339 3.975 2.864 1.907 2.098
beavertails Vicuna harmless .345 .358 .453 .468 9.689 9.955 2.246 4.711
beavertails Vicuna helpful .348 .355 .449 .465 8.820 11.940 1.876 2.510
"""
_TABLE_5 = f"""
data model aim {_COLUMNS}
beavertails Mistral-Instruct harmless .363 .384 .515 .522 10.323 13.699 1.975 5.117
beavertails Mistral-Instruct helpful .373 .379 .517 .529 12.313 19.006 0.862 2.206
beavertails Mistral harmless .414 .413 .582 .585 6.733 5.853 1.587 0.641
beavertails Mistral helpful .419 .415 .584 .594 8.864 5.970 1.261 -9.369
beavertails LLaMA-1 harmless .312 .308 .342 .323 4.608 0.994 1.739 3.204
beavertails LLaMA-1 helpful .307 .320 .354 .330 4.857 2.989 1.655 1.588
beavertails Vicuna harmless .342 .332 .450 .454 11.180 13.292 2.007 5.367
beavertails Vicuna helpful .343 .335 .451 .453 12.422 20.449 1.703 3.231
"""
# Table 6, by the names that `common.preference.tuning.Tuning` and its adapter have for them: (SFT, DPO).
TABLE_6 = {
    "learning_rate": ("2e-4", "5e-5"),
    "r": ("64", "16"),
    "lora_alpha": ("16", "32"),
    "lora_dropout": ("0.1", "0.05"),
    "batch_size": ("16", "16"),
    "steps": ("700", "700"),
    "max_grad_norm": ("0.3", "1"),
    "weight_decay": ("0.001", "0"),
    "schedule": ("constant", "cosine"),
    "betas": ("0.9, 0.999", "0.9, 0.999"),
    "target_modules": ("q, v", "k, gate, v, up, q, o, down"),
    "optimizer": ("paged AdamW", "paged AdamW"),
}


def table_2() -> pd.DataFrame:
    """Mixtures, BeaverTails, QLoRA: model, start, aim (none: untuned), method, measure (ours), paper."""
    return _tidy(_TABLE_2, ["model", "aim"])


def table_3() -> pd.DataFrame:
    """Merges, BeaverTails, of both Mistrals: row (an aim or merge, and methods), start, measure, paper."""
    return _tidy(_TABLE_3, ["row"], "start")


def table_4() -> pd.DataFrame:
    """QLoRA: dataset (ours), model, start, aim, method, measure, paper."""
    return _tidy(_TABLE_4, ["data", "model", "aim"])


def table_5() -> pd.DataFrame:
    """LoRA, BeaverTails alone; columns as `table_4`."""
    return _tidy(_TABLE_5, ["data", "model", "aim"])


def _tidy(text: str, keys: list[str], across: str = "method") -> pd.DataFrame:
    wide = pd.read_csv(StringIO(text), sep=r"\s+", keep_default_na=False)
    long = wide.melt(keys, var_name="column", value_name="paper")
    long["measure"] = long["column"].str.partition("_")[0].map(OURS)
    long[across] = long.pop("column").str.partition("_")[2]
    if "model" in long:
        long["start"] = long["model"].map(STARTS)
    if "data" in long:
        long["dataset"] = long.pop("data").map(DATA)
    return long
