"""How the documentation is built; see ``make docs`` or run sphinx-build with ``-n -W``."""

from typing import TYPE_CHECKING, Any, Final

from leader_jobs.version import version as installed

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project: Final = "leader-jobs"
author: Final = "the leader-jobs authors"
project_copyright: Final = "2026, the leader-jobs authors"
version = release = installed()

extensions: Final = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns: Final = ["_build"]
html_theme: Final = "furo"
html_title: Final = f"leader-jobs {release}"

myst_enable_extensions: Final = ["colon_fence", "deflist"]
myst_heading_anchors: Final = 3

#: In docstrings a name in single backticks is an object of this library where there is one of that
#: name, and plain code elsewhere.
default_role: Final = "py:obj"

autodoc_member_order: Final = "bysource"
autodoc_default_options: Final = {"members": True}
autodoc_typehints: Final = "signature"
autodoc_preserve_defaults: Final = True
napoleon_google_docstring: Final = True
napoleon_numpy_docstring: Final = False
napoleon_use_ivar: Final = False
napoleon_use_rtype: Final = False

#: Nothing is downloaded, so the standard library and the frameworks can not be linked to; type
#: variables and private types have no page.
nitpick_ignore_regex: Final = [
    ("py:obj", r".*"),
    (
        "py:class",
        r"(argparse|collections|contextlib|datetime|enum|pathlib|socket|ssl|threading|typing|uuid)\..*",
    ),
    ("py:class", r"(apscheduler|celery|django)\..*"),
    (
        "py:class",
        r"([A-Za-z_.]*\.)?(C|CollectorRegistry|F|P|R|S|Snapshot|T|Path|WallTimes|Clocks|_Decorator)",
    ),
]

copybutton_prompt_text: Final = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp: Final = True


def keep_colons(
    _app: "Sphinx", what: str, _name: str, _obj: Any, _options: Any, lines: list[str]
) -> None:
    """Keep napoleon from taking what stands before a colon in a property's text for its type."""
    if what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]  # an empty comment


def setup(app: "Sphinx") -> None:
    """Come before napoleon."""
    app.connect("autodoc-process-docstring", keep_colons, priority=400)
