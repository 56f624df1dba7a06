"""Which licences let everybody use a model for anything, and what is known of those that do not."""

from __future__ import annotations

import re

# By SPDX identifier, of those that models carry; each is open by the Open Source Initiative's list, or by Creative
# Commons' own account of what may be done with works.
OPEN = frozenset(
    name.lower()
    for name in (
        *("Apache-2.0", "MIT", "MIT-0", "BSD-2-Clause", "BSD-3-Clause", "BSD-3-Clause-Clear", "ISC", "Zlib"),
        *("MPL-2.0", "Artistic-2.0", "ECL-2.0", "EPL-2.0", "EUPL-1.2", "AFL-3.0", "BSL-1.0", "MS-PL", "OSL-3.0"),
        *("GPL-2.0-only", "GPL-2.0-or-later", "GPL-3.0-only", "GPL-3.0-or-later", "GPL-3.0"),
        *("LGPL-2.1-only", "LGPL-2.1-or-later", "LGPL-3.0-only", "LGPL-3.0-or-later", "LGPL-3.0"),
        *("AGPL-3.0-only", "AGPL-3.0-or-later", "AGPL-3.0"),
        *("CC0-1.0", "CC-BY-4.0", "CC-BY-3.0", "CC-BY-SA-4.0", "CC-BY-SA-3.0", "PDDL-1.0", "ODC-By-1.0"),
        *("Unlicense", "0BSD", "WTFPL", "OpenMDW-1.0"),
    )
)

# By how the identifier begins, without `LicenseRef-`; the longest first where one begins with another.
_RESTRICTIONS = {
    "mnpl": "no production use: research and testing only",
    "mrl": "research only, no commercial use",
    "llama": "terms on large companies, on naming, and on what it may be used for",
    "gemma": "terms on what it may be used for, passed on to whoever receives it",
    "qwen-research": "research only, no commercial use",
    "qwen": "large companies need a licence of their own",
    "deepseek": "terms on what it may be used for",
    "openrail": "terms on what it may be used for",
    "bigscience-": "terms on what it may be used for",
    "bigcode-openrail": "terms on what it may be used for",
    "creativeml-openrail": "terms on what it may be used for",
    "cc-by-nc": "no commercial use",
    "cc-by-nd": "no changed versions may be passed on",
}


def restriction(license_id: str | None) -> str | None:
    """Return in a line what to beware of in a licence that is not open; None for open ones, and where none is named."""
    if not license_id or is_open(license_id):
        return None
    name = license_id.lower().removeprefix("licenseref-")
    known = next((text for start, text in _RESTRICTIONS.items() if name.startswith(start)), None)
    return f"`{license_id}` is not an open licence: {known or 'read its terms before use'}"


def is_open(license_id: str) -> bool:
    """Return whether an SPDX expression leaves an open licence to choose, or asks for open ones only."""
    text = license_id.lower()
    if "(" in text:  # what may be chosen there would take a parser: all of them must be open
        return all(_is_open(name) for name in re.split(r" and | or ", re.sub("[()]", " ", text)))
    return any(all(_is_open(name) for name in choice.split(" and ")) for choice in text.split(" or "))


def _is_open(name: str) -> bool:
    return name.partition(" with ")[0].strip() in OPEN  # exceptions only allow more
