"""The prompts: template files with a system and a user part, and how document text gets into them.

A template file is UTF-8 text: the line `# System`, the system part, the line `# User`, the user part
(an empty system part is left out of the request). `$name` stands for a value and `$$` for a dollar
sign; values are put in once and all together, so a `$question` inside a document stays as it is.

| file | placeholders it must have | placeholders it may have |
|---|---|---|
| doc2query.md | `$document` | `$wanted`, `$reply`, `$num_questions`, `$question_type`, `$length`, `$wording`, `$persona`, `$boundary` |
| reason_distill.md | `$question`, `$documents` | `$scenario`, `$num_documents`, `$boundary` |
| judge_relevance.md | `$question`, `$passage` | `$scenario`, `$boundary` |
| judge_answer.md | `$answers` | `$question`, `$boundary` |
| judge_question.md | `$question`, `$document` | `$scenario`, `$boundary` |
| judge_pair.md | `$document`, `$examples` | `$boundary`, `$examples_boundary` |

`$document`, `$documents`, `$passage`, `$answers` and `$examples` come with the tags around each of them and with
the document's title, `$boundary` is the code in the tags. `$wanted` says how many questions are wanted and what each
is to be like, `$reply` what the JSON looks like; `$question_type` to `$persona` are the parts of `$wanted`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from string import Template
from typing import NamedTuple

PACKAGED = Path(__file__).parent / "prompts"

_PARTS = re.compile(r"\s*# System[ \t]*\n(.*?)^# User[ \t]*\n(.*)", re.DOTALL | re.MULTILINE)


class TemplateError(ValueError):
    """Raised for a prompt template that can't be used; the message names the file and what is wrong in it."""


class _Placeholders(NamedTuple):
    required: frozenset[str]
    optional: frozenset[str]


_PLACEHOLDERS = {
    "doc2query": _Placeholders(
        frozenset({"document"}),
        frozenset(
            {
                *("wanted", "reply", "num_questions", "boundary"),
                *("question_type", "length", "wording", "persona"),
            }
        ),
    ),
    "reason_distill": _Placeholders(
        frozenset({"question", "documents"}), frozenset({"scenario", "num_documents", "boundary"})
    ),
    "judge_relevance": _Placeholders(
        frozenset({"question", "passage"}), frozenset({"scenario", "boundary"})
    ),
    "judge_answer": _Placeholders(frozenset({"answers"}), frozenset({"question", "boundary"})),
    "judge_question": _Placeholders(
        frozenset({"question", "document"}), frozenset({"scenario", "boundary"})
    ),
    "judge_pair": _Placeholders(
        frozenset({"document", "examples"}), frozenset({"boundary", "examples_boundary"})
    ),
}


@dataclass(frozen=True)
class PromptTemplate:
    """One prompt: its two parts with placeholders, and the file they were read from.

    >>> prompt = PromptTemplate("own.md", "Be brief.", "Read this: $document")
    >>> prompt.messages({"document": "Salt costs $5."})[1]
    {'role': 'user', 'content': 'Read this: Salt costs $5.'}
    """

    origin: str
    system: str
    user: str

    @cached_property
    def fingerprint(self) -> str:
        """Short hash (16 hex digits) of the wording; where the file lies does not count."""
        content = json.dumps([self.system, self.user])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @cached_property
    def placeholders(self) -> frozenset[str]:
        """The placeholders that it has."""
        return frozenset(Template(f"{self.system}\n{self.user}").get_identifiers())

    @cached_property
    def wording(self) -> str:
        """Both parts with their placeholders taken out: what the prompt itself says."""
        blank = dict.fromkeys(Template(self.system + self.user).get_identifiers(), " ")
        return Template(f"{self.system}\n{self.user}").substitute(blank)

    def messages(self, values: Mapping[str, str]) -> tuple[Mapping[str, str], ...]:
        """Return the chat messages with `values` in place of the placeholders.

        Raises:
            KeyError: `values` lacks one.
        """
        user = {"role": "user", "content": Template(self.user).substitute(values)}
        if not self.system:
            return (user,)
        return ({"role": "system", "content": Template(self.system).substitute(values)}, user)


@dataclass(frozen=True)
class Templates:
    """The prompts of all operators."""

    doc2query: PromptTemplate
    reason_distill: PromptTemplate
    judge_relevance: PromptTemplate
    judge_answer: PromptTemplate
    judge_question: PromptTemplate
    judge_pair: PromptTemplate


def load_templates(folder: str | None = None) -> Templates:
    """Read the prompts: a file in `folder` wins over the packaged one of the same name.

    Raises:
        TemplateError: the folder can't be read or holds no template, a file is not UTF-8, lacks
            one of its two parts, has a placeholder that nothing fills, or lacks one it needs.
    """
    own = _own_files(folder) if folder is not None else {}
    prompts = {
        name: _read(own.get(name, PACKAGED / f"{name}.md"), placeholders)
        for name, placeholders in _PLACEHOLDERS.items()
    }
    return Templates(**prompts)


class Quoted(NamedTuple):
    """Texts between tags, and the code in the tags."""

    text: str
    boundary: str


def quote(
    documents: Sequence[str], others: Iterable[str] = (), *, numbered: bool, tag: str = "document"
) -> Quoted:
    """Put each document (or what else `tag` says) between tags that nothing inside can close.

    The tags' code is a hash of the documents, so equal requests stay equal; it stands in none of the
    documents nor in `others` (further texts of the same prompt).

    >>> quoted = quote(["Salt melts ice."], numbered=True)
    >>> print(quoted.text.replace(quoted.boundary, "code"))
    <document-code number="1">
    Salt melts ice.
    </document-code>
    """
    texts = [*documents, *others]
    digest = hashlib.sha256(json.dumps(texts).encode())
    boundary = digest.hexdigest()[:8]
    while any(boundary in text for text in texts):
        digest.update(b"next")
        boundary = digest.hexdigest()[:8]
    blocks = []
    for number, document in enumerate(documents, start=1):
        attribute = f' number="{number}"' if numbered else ""
        blocks.append(f"<{tag}-{boundary}{attribute}>\n{document}\n</{tag}-{boundary}>")
    return Quoted("\n\n".join(blocks), boundary)


def _own_files(folder: str) -> dict[str, Path]:
    path = Path(folder).expanduser()
    try:
        present = {file.name for file in path.iterdir()}
    except OSError as error:
        raise TemplateError(
            f"RARE_PROMPTS: cannot read the folder {folder!r} ({error.strerror}). Name a folder with "
            "your own templates, or unset it to use the packaged ones."
        ) from error
    own = {name: path / f"{name}.md" for name in _PLACEHOLDERS if f"{name}.md" in present}
    if not own:
        names = " or ".join(f"{name}.md" for name in _PLACEHOLDERS)
        raise TemplateError(f"RARE_PROMPTS: the folder {folder!r} holds no {names}.")
    return own


def _read(path: Path, placeholders: _Placeholders) -> PromptTemplate:
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise TemplateError(f"{path}: cannot read the template ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise TemplateError(f"{path}: not UTF-8 (byte {error.start}).") from error
    parts = _PARTS.fullmatch(content)
    if parts is None:
        raise TemplateError(
            f"{path}: a template needs the line '# System', a system part, the line '# User' and a "
            "user part, in this order."
        )
    system, user = parts[1].strip(), parts[2].strip()
    for match in Template.pattern.finditer(content):
        if match["invalid"] is not None:
            line = content.count("\n", 0, match.start()) + 1
            raise TemplateError(
                f"{path}: line {line} has a '$' that begins no placeholder; write '$$' for a dollar "
                "sign."
            )
    known = placeholders.required | placeholders.optional
    used = set(Template(f"{system}\n{user}").get_identifiers())
    if unknown := sorted(used - known):
        raise TemplateError(
            f"{path}: unknown placeholder {_listed(unknown)}; there are {_listed(sorted(known))}."
        )
    if missing := sorted(placeholders.required - set(Template(user).get_identifiers())):
        raise TemplateError(f"{path}: the user part lacks the placeholder {_listed(missing)}.")
    return PromptTemplate(str(path), system, user)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"${name}" for name in names)
