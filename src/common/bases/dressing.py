"""What the tokenizer of a model on the hub lacks for dialogues, put beside its weights."""

import hashlib
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

SETTINGS = "tokenizer_config.json"


def dressed(name: str, folder: Path, adds: Sequence[Lacking], cache: Path = CACHE) -> Path:
    """A folder with the files of `folder`, linked, whose tokenizer has what it lacked; `folder` where that is nothing.

    `chat_template` is ours, `pad_token` the end token: padding is never learnt. The folder's name has a digest of what
    is in it: one that is there is used as it is, as other processes may be reading it. Raises `UserError` where it has
    a chat template or a padding token already, or has no end token.
    """
    if not adds:
        return folder
    tokenizer = _opened(name, folder)
    for part in adds:
        if getattr(tokenizer, part):
            raise UserError(f"{name}: its tokenizer has a {part} of its own: leave it out of `adds`")
    if tokenizer.eos_token is None:
        raise UserError(f"{name}: its tokenizer has no end token")
    linked = {file.name: file.resolve() for file in sorted(folder.iterdir()) if file.is_file()}
    own = linked.pop(SETTINGS, None)
    settings = {} if own is None else json.loads(own.read_text(encoding="utf-8"))
    if "pad_token" in adds:
        settings["pad_token"] = tokenizer.eos_token
    if "chat_template" in adds:
        settings["chat_template"] = CHAT_TEMPLATE
    written = json.dumps(settings, indent=2) + "\n"
    content = hashlib.sha256(repr((sorted(linked.items()), written)).encode()).hexdigest()
    place = cache / "models" / f"{name}-dressed-{content[:12]}"
    if not place.is_dir():
        with atomic_folder(place) as new:
            for file, target in linked.items():
                (new / file).symlink_to(target)
            (new / SETTINGS).write_text(written, encoding="utf-8")
    return place


def _opened(name: str, folder: Path) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises no narrower one on a broken file
        line = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{name}: its tokenizer cannot be opened: {line}") from error
