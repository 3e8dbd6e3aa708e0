"""Charts on a page: matplotlib's SVG made small, safe under a strict Content-Security-Policy, and dressed by the page.

Style attributes, which the policy forbids, become presentation attributes; colours that have a role become the page's
own (`var(--ink)`), so that a figure follows the light or dark theme; names of elements get the chart's name in front,
so that several charts share a page.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from markupsafe import Markup

from atp_eval.plotting import ROLES, Chart, to_svg
from atp_eval.reporting.svg import clean

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
FONT = re.compile(r"(?:(?P<weight>bold|\d00) )?(?P<size>[\d.]+)px")
DROPPED = ("metadata", "style")
POINTS_TO_PIXELS = 4 / 3


def inline(chart: Chart) -> Markup:
    """The chart as an element of a page, described by its `alt`."""
    ET.register_namespace("", SVG)
    root = ET.fromstring(to_svg(chart))
    for parent in list(root.iter()):
        for child in [c for c in parent if local(c.tag) in DROPPED]:
            parent.remove(child)
    for element in root.iter():
        element.tag = local(element.tag)
        dress(element, chart.name)
    used = set(re.findall(r"#([^\s\"')]+)", " ".join(value for e in root.iter() for value in e.attrib.values())))
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
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


def dress(element: ET.Element, name: str) -> None:
    """Rewrite an element's attributes, and what its text must not carry, in place."""
    found = {local(key): value for key, value in element.attrib.items()}
    for declaration in filter(None, (d.strip() for d in found.pop("style", "").split(";"))):
        key, _, value = declaration.partition(":")
        found |= font(value.strip()) if key.strip() == "font" else {key.strip(): value.strip()}
    found.pop("font-family", None)  # the page's own is used
    element.attrib.clear()
    for key, value in found.items():
        if key == "id":
            value = f"{name}-{value}"
        elif key == "href" and value.startswith("#"):
            value = f"#{name}-{value[1:]}"
        value = re.sub(r"url\(#", f"url(#{name}-", value)
        element.set(key, f"var({ROLES[value]})" if value in ROLES else value)
    if element.text:
        element.text = clean(element.text)


def font(shorthand: str) -> dict[str, str]:
    """Size and weight of a `font` shorthand; the family is the page's."""
    found = FONT.search(shorthand)
    if found is None:
        return {}
    weight = {"font-weight": found["weight"]} if found["weight"] else {}
    return {"font-size": found["size"], **weight}
