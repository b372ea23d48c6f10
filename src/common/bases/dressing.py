"""What the tokenizer of a model on the hub lacks for dialogues, put beside its weights."""

import json
from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from common.errors import UserError
from common.files import atomic_folder
from common.hub import Lacking
from common.project import CACHE

# Plain words, which a model that learnt no dialogues has read; a turn begins on a line of its own, so that a reply has
# the same tokens whether or not something follows.
CHAT_TEMPLATE = (
    "{{- bos_token | default('', true) }}"
    "{%- for message in messages %}"
    "{%- if message['role'] not in ['user', 'assistant'] %}"
    "{{- raise_exception('roles are user and assistant, not ' + message['role']) }}{% endif %}"
    "{{- message['role'] | capitalize + ':\\n' + message['content'] | trim }}"
    "{{- eos_token if message['role'] == 'assistant' else '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- 'Assistant:\\n' }}{% endif %}"
)


def dressed(name: str, folder: Path, adds: Sequence[Lacking], cache: Path = CACHE) -> Path:
    """A folder with the files of `folder`, linked, whose tokenizer has what it lacked; `folder` where that is nothing.

    `chat_template` is ours, `pad_token` the end token: padding is never learnt. Raises `UserError` where it has a chat
    template or a padding token already, or has no end token.
    """
    if not adds:
        return folder
    tokenizer = _opened(name, folder)
    for part in adds:
        if getattr(tokenizer, part):
            raise UserError(f"{name}: its tokenizer has a {part} of its own: leave it out of `adds`")
    if tokenizer.eos_token is None:
        raise UserError(f"{name}: its tokenizer has no end token")
    place = cache / "models" / f"{name}-dressed"
    with atomic_folder(place) as new:
        for file in sorted(each for each in folder.iterdir() if each.is_file()):
            (new / file.name).symlink_to(file.resolve())
        settings = new / "tokenizer_config.json"
        known = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
        if "pad_token" in adds:
            known["pad_token"] = tokenizer.eos_token
        if "chat_template" in adds:
            known["chat_template"] = CHAT_TEMPLATE
        settings.unlink(missing_ok=True)  # the link alone
        settings.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    return place


def _opened(name: str, folder: Path) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises no narrower one on a broken file
        line = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{name}: its tokenizer cannot be opened: {line}") from error
