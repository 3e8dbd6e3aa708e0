"""Charts on a page: matplotlib's SVG made small, safe under a strict Content-Security-Policy, and dressed by the page.

Style attributes, which the policy forbids, become presentation attributes; colours that have a role become the page's
own (`var(--ink)`), so that a figure follows the light or dark theme; names of elements get the chart's name in front,
so that several charts share a page. What draws nothing goes, and coordinates are rounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree as ET

from markupsafe import Markup

from atp_eval.plotting import ROLES, Chart, to_svg
from atp_eval.reporting.svg import clean

SVG = "http://www.w3.org/2000/svg"
FONT = re.compile(r"(?:(?P<weight>bold|\d00) )?(?P<size>[\d.]+)px")
LONG = re.compile(r"-?\d+\.\d{3,}")  # a number with more than two decimals
MEASURES = ("x", "y", "d", "transform", "width", "height")
DROPPED = ("metadata", "style")
POINTS_TO_PIXELS = 4 / 3


def inline(chart: Chart) -> Markup:
    """The chart as an element of a page, described by its `alt`."""
    ET.register_namespace("", SVG)
    root = ET.fromstring(to_svg(chart))
    for element in root.iter():
        element.tag = local(element.tag)
        dress(element)
    root[:] = list(kept(root))
    number_names(root, chart.name)
    width, height = (round(inches * 72 * POINTS_TO_PIXELS) for inches in chart.size)
    view = root.get("viewBox", "")
    root.attrib.clear()
    root.attrib |= {
        **{"class": "chart", "viewBox": view, "width": str(width), "height": str(height)},
        **{"role": "img", "aria-labelledby": f"{chart.name}-title"},
    }
    title = ET.Element("title", {"id": f"{chart.name}-title"})
    title.text = clean(chart.alt)
    root.insert(0, title)
    return Markup(ET.tostring(root, encoding="unicode"))


def local(name: str) -> str:
    """A tag's or attribute's name without its namespace."""
    return name.rpartition("}")[2]


def dress(element: ET.Element) -> None:
    """Rewrite an element's attributes, and what its text must not carry, in place."""
    found = {local(key): value for key, value in element.attrib.items()}
    for declaration in filter(None, (d.strip() for d in found.pop("style", "").split(";"))):
        key, _, value = declaration.partition(":")
        found |= font(value.strip()) if key.strip() == "font" else {key.strip(): value.strip()}
    found.pop("font-family", None)  # the page's own is used
    element.attrib.clear()
    for key, value in found.items():
        if key in MEASURES:
            value = shortened(value)
        if key in ("transform", "rotate") and value.startswith("rotate(-0 "):
            continue
        element.set(key, f"var({ROLES[value]})" if value in ROLES else value)
    element.text = clean(element.text) if element.text and element.text.strip() else None
    element.tail = None


def shortened(value: str) -> str:
    """Coordinates with two decimals at most, and a path without needless blanks."""
    value = LONG.sub(lambda m: f"{float(m.group()):.2f}".rstrip("0").rstrip("."), value)
    return re.sub(r" *([MLCQzZ]) *", r"\1", " ".join(value.split())) if value[:1] == "M" else value


def kept(parent: ET.Element) -> Iterator[ET.Element]:
    """The children that draw or define something, groups that say nothing replaced by what is in them."""
    for child in parent:
        child[:] = list(kept(child))
        if child.tag in DROPPED or is_invisible(child):
            continue
        if child.tag == "g" and set(child.attrib) <= {"id"}:
            yield from child
        elif child.tag != "defs" or len(child):
            yield child


def is_invisible(element: ET.Element) -> bool:
    """Whether it is a shape with neither an inside nor an outline, outside of definitions."""
    shape = element.tag in ("path", "rect") and "id" not in element.attrib
    return shape and element.get("fill") == "none" and element.get("stroke", "none") == "none"


def number_names(root: ET.Element, name: str) -> None:
    """Short names for what is referred to; the others go."""
    text = " ".join(value for e in root.iter() for value in e.attrib.values())
    names = {old: f"{name}-{i}" for i, old in enumerate(dict.fromkeys(re.findall(r"#([\w.-]+)", text)))}
    for element in root.iter():
        if (found := element.attrib.pop("id", None)) in names:
            element.set("id", names[found])
        if (target := element.get("href", "")).startswith("#"):
            element.set("href", f"#{names[target[1:]]}")
        for key, value in element.attrib.items():
            if value.startswith("url(#"):
                element.set(key, f"url(#{names[value[5:-1]]})")


def font(shorthand: str) -> dict[str, str]:
    """Size and weight of a `font` shorthand; the family is the page's."""
    found = FONT.search(shorthand)
    if found is None:
        return {}
    weight = {"font-weight": found["weight"]} if found["weight"] else {}
    return {"font-size": found["size"], **weight}
