"""Reading a benchmark's documents and lmms-eval's logged samples: what was asked, what was right, what was no answer.

A document is one row of a benchmark, as lmms-eval hands it out (`task_dict[task][split][doc_id]`, or `doc` of a logged
sample, which lacks the images). The embedded suite has the real schemas and five columns more: `kind`, `level`,
`scene_seed`, `objects` and `things_cells`. Neither torch nor lmms-eval is imported here.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

Doc = Mapping[str, Any]
Form = Literal["open", "yes_no", "choice"]
Level = Literal["coarse", "middle", "fine"]
LETTERS = "ABCDEFGHIJ"
CIRCULAR = 10**6  # MMBench repeats a question with its options turned at index + k * 10**6

SEED_TYPES = (
    "Scene Understanding",
    "Instance Identity",
    "Instance Attributes",
    "Instance Location",
    "Instances Counting",
    "Spatial Relation",
    "Instance Interaction",
    "Visual Reasoning",
    "Text Understanding",
)
# The paper's Fig. 2 names these three as examples of its coarse and fine tasks; it sorts no others.
SEED_LEVELS: dict[str, Level] = {
    "Scene Understanding": "coarse",
    "Instances Counting": "fine",
    "Spatial Relation": "fine",
}


@dataclass(frozen=True)
class DocInfo:
    """What a document asks.

    question: the bare question, without options, hints and lmms-eval's prompts.
    target: the right answer; for a choice its letter.
    options: the texts behind the letters A, B, …; empty unless a choice.
    image_key: equal for documents that share a picture, the unit of clustered intervals; None if the row does not say.
    group: documents that a metric scores together (MME's pairs, MMBench's circular rows); None where each stands alone.
    objects: how many things are in the picture. cells: raster indexes on the 24 x 24 grid of those asked about; none
        where the question is about no thing that is there. Both: embedded suite only.
    """

    question: str
    target: str
    options: tuple[str, ...] = ()
    category: str | None = None
    level: Level | None = None
    kind: str | None = None
    image_key: str | None = None
    group: str | None = None
    objects: int | None = None
    cells: tuple[int, ...] | None = None


def with_scene(info: DocInfo, doc: Doc) -> DocInfo:
    """The same, with what only rows of the embedded suite tell."""
    if doc.get("scene_seed") is None:
        return info
    return replace(
        info,
        level=doc["level"],
        kind=doc["kind"],
        image_key=f"scene-{doc['scene_seed']}",
        objects=int(doc["objects"]),
        cells=tuple(doc["things_cells"]),
    )


def _text(value: object) -> str | None:
    return None if value is None or value == "" else str(value)


# ------------------------------------------------------------------ one reader per schema


def gqa(doc: Doc) -> DocInfo:
    """Columns question, answer, imageId, types {structural, semantic, detailed}."""
    types = doc.get("types") or {}
    return DocInfo(doc["question"], doc["answer"], category=_text(types.get("semantic")), image_key=str(doc["imageId"]))


def vqav2(doc: Doc) -> DocInfo:
    """Columns question, answers [{answer, …}] of ten people, answer_type, image_id."""
    target = doc.get("multiple_choice_answer") or _most_common([a["answer"] for a in doc["answers"] or ()])
    return DocInfo(doc["question"], target, category=_text(doc.get("answer_type")), image_key=_text(doc["image_id"]))


def mme(doc: Doc) -> DocInfo:
    """Columns question, answer, category, question_id; a yes and a no question share a question_id."""
    question = doc["question"].strip().removesuffix("Please answer yes or no.").strip()
    pair = f"{doc['category']}/{doc['question_id']}"
    return DocInfo(question, doc["answer"], category=doc["category"], image_key=str(doc["question_id"]), group=pair)


def pope(doc: Doc) -> DocInfo:
    """Columns question, answer, category (adversarial, popular, random), image_source."""
    return DocInfo(
        doc["question"].strip(),
        doc["answer"],
        category=_text(doc.get("category")),
        image_key=_text(doc.get("image_source")),
    )


def mmbench(doc: Doc) -> DocInfo:
    """Columns question, A to E (missing options are the text "nan"), answer, index, category, L2-category."""
    options = [doc.get(letter) for letter in LETTERS[:5]]
    group = str(int(doc["index"]) % CIRCULAR)
    l2 = str(doc.get("L2-category") or "")
    level: Level | None = "fine" if l2.startswith("fine") else "coarse" if l2.startswith("coarse") else None
    return DocInfo(
        doc["question"],
        doc["answer"],
        options=tuple(str(o) for o in options if o is not None and o != "nan" and o == o),
        category=_text(doc["category"]),
        level=level,
        image_key=group,
        group=group,
    )


def seed(doc: Doc) -> DocInfo:
    """Columns question, choice_a to choice_d, answer, question_type_id (1 to 9 for images), data_id."""
    kind = int(doc.get("question_type_id") or 0)
    category = SEED_TYPES[kind - 1] if 1 <= kind <= len(SEED_TYPES) else None
    return DocInfo(
        doc["question"],
        doc["answer"],
        options=tuple(str(doc[f"choice_{letter}"]) for letter in "abcd"),
        category=category,
        level=SEED_LEVELS.get(category or ""),
        image_key=_text(doc.get("data_id")),
    )


def scienceqa(doc: Doc) -> DocInfo:
    """Columns question, choices, answer (an index), subject; the rows name no image."""
    return DocInfo(
        doc["question"], LETTERS[int(doc["answer"])], options=tuple(doc["choices"]), category=_text(doc.get("subject"))
    )


def several_answers(doc: Doc) -> DocInfo:
    """DocVQA, InfographicVQA, TextVQA: any of `answers` is right; the target shown is the commonest."""
    image = doc.get("image_id") or doc.get("docId") or doc.get("ucsf_document_id")
    return DocInfo(doc["question"], _most_common(doc["answers"] or ()), image_key=_text(image))


def ocrbench(doc: Doc) -> DocInfo:
    """Columns question, answer (a list), question_type, dataset."""
    answer = doc["answer"]
    target = answer if isinstance(answer, str) else _most_common(answer)
    return DocInfo(doc["question"], target, category=doc["question_type"])


def chartqa(doc: Doc) -> DocInfo:
    """Columns question, answer, type (human_test or augmented_test)."""
    return DocInfo(doc["question"], doc["answer"], category=_text(doc.get("type")))


def ai2d(doc: Doc) -> DocInfo:
    """Columns question, options, answer (an index, as text)."""
    return DocInfo(doc["question"], LETTERS[int(doc["answer"])], options=tuple(doc["options"]))


def mmmu(doc: Doc) -> DocInfo:
    """Columns question, options (a list printed as text), answer, question_type, id."""
    options = ast.literal_eval(doc["options"]) if doc["question_type"] == "multiple-choice" else ()
    category = "_".join(doc["id"].split("_")[1:-1])
    return DocInfo(doc["question"], str(doc["answer"]), options=tuple(map(str, options)), category=_text(category))


def realworldqa(doc: Doc) -> DocInfo:
    """Columns question (options inside), answer."""
    return DocInfo(doc["question"], doc["answer"])


def _most_common(answers: Sequence[str]) -> str:
    return Counter(answers).most_common(1)[0][0] if answers else ""


# ------------------------------------------------------------------ scores and invalid answers


def score_of(value: object) -> float | None:
    """A score in [0, 1] from what lmms-eval's process_results gave: a number, {score, …} or {pred, answer, …}."""
    if isinstance(value, Mapping):
        if "score" in value:
            return float(value["score"])
        if "pred" in value:
            return float(str(value["pred"]).lower().strip() == str(value["answer"]).lower().strip())
        return None
    return None if value is None else float(str(value))


def letter_of(response: str, options: int) -> str | None:
    """The option letter that a response names: its first word, or the whole of it in any case; else None."""
    allowed = LETTERS[:options]
    if match := re.match(rf"\W*([{allowed}])(?:\W|$)", response):
        return match.group(1)
    bare = response.strip(" .,:;()[]\n\t").upper()
    return bare if len(bare) == 1 and bare in allowed else None


def is_valid(form: Form, response: str | None, options: int = 0) -> bool:
    """Whether a response answers a question of this form at all, right or wrong; our own rate, on no lmms-eval metric.

    yes_no: the first word is yes or no. choice: a letter of the options comes first, or the whole response is one in
    any case (a choice among no known options counts as open). open: there is a letter or a digit.
    """
    if response is None:
        return False
    if form == "yes_no":
        words = re.findall(r"\w+", response.lower())
        return bool(words) and words[0] in ("yes", "no")
    if form == "choice" and options:
        return letter_of(response, options) is not None
    return any(c.isalnum() for c in response)
