"""The documentation's build, strict and offline; see CONTRIBUTING.md for the command.

Needs fastsample installed and the dependency group `docs`. The runtimes need not be installed, and
are not used where they are: what their adapters inherit from them is not documented here. Links
between pages, to anchors, to files and to names of the API are checked; links to other sites are
few and are not, since a build must not depend on them.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util import logging

ROOT = Path(__file__).resolve().parents[1]

# `python -m sphinx` puts the working directory on the path, where `import fastsample` would find
# the source folder, which has no compiled extension.
sys.path[:] = [p for p in sys.path if Path(p or os.curdir).resolve() != ROOT]

import fastsample  # noqa: E402
from fastsample.cli import COMMANDS, make_parser  # noqa: E402

project = "fastsample"
author = "the fastsample authors"
copyright = author
release = version = fastsample.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc"]
exclude_patterns = ["_build", "examples", "package.md"]
nitpicky = True

html_theme = "furo"
html_title = f"fastsample {version}"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["math.css"]
html_math_renderer = "mathml"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_mock_imports = ["mlx", "onnxruntime_genai", "torch", "transformers"]
autodoc_typehints = "none"  # numpydoc's types say shapes too
autosummary_generate = False  # a table of links; the entries are on the same page
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
default_role = "name"


def stand_in_for_llama_cpp() -> None:
    """Provide what the adapter checks for when it is imported, which a plain mock does not have."""

    class Llama:
        def _init_sampler(
            self, temp: Any, top_k: Any, top_p: Any, min_p: Any, logits_processor: Any,
            repeat_penalty: Any, frequency_penalty: Any, presence_penalty: Any, grammar: Any,
            mirostat_mode: Any, mirostat_tau: Any, mirostat_eta: Any, typical_p: Any,
        ) -> None: ...  # fmt: skip

        def create_completion(self) -> None: ...

    module: Any = ModuleType("llama_cpp")
    module.Llama = Llama
    module.llama_get_logits_ith = ctypes.CFUNCTYPE(None)()
    sys.modules["llama_cpp"] = module


def name_role(
    role: str, rawtext: str, text: str, lineno: int, inliner: Any, *_: Any
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """Make `name` a link where it is a public function or class, and code where it is not.

    In docstrings single backticks hold parameters too; `top_k` is always one.
    """
    name = text.removeprefix("fastsample.")
    code = nodes.literal(rawtext, text, classes=["xref", "py"])
    if name not in {*fastsample.__all__, "Explanation"} - {"top_k"} or name != text.split(".")[-1]:
        return [nodes.literal(rawtext, text)], []
    home = "fastsample.explain" if name == "Explanation" else "fastsample"
    if name == "generate":  # there is one of each runtime too; the nearest is meant
        home = inliner.document.settings.env.ref_context.get("py:module") or home
    target = {"refdomain": "py", "reftype": "obj", "reftarget": f"{home}.{name}"}
    refdoc = inliner.document.settings.env.docname
    return [pending_xref(rawtext, code, **target, refexplicit=True, refdoc=refdoc)], []


class Usage(Directive):
    """The help of a command, as the command line prints it."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        """Return a block of text."""
        (name,) = self.arguments
        if name not in COMMANDS:
            raise self.error(f"no command {name!r}, only {', '.join(COMMANDS)}")
        os.environ |= {"COLUMNS": "92", "NO_COLOR": "1"}
        (table,) = (a for a in make_parser()._actions if isinstance(a.choices, dict))
        text = table.choices[name].format_help()
        return [nodes.literal_block(text, text, language="text")]


def visit_math(self: Any, node: nodes.math | nodes.math_block) -> None:
    """Write MathML, which browsers show by themselves: no script from another site."""
    try:
        self.body.append(tex2mathml(node.astext(), as_block=isinstance(node, nodes.math_block)))
    except MathError as error:
        logging.getLogger(__name__).warning(str(error), location=node, type="math")
    raise nodes.SkipNode


def relabel_citations(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Show [1] for [R20469e24442f-1], where numpydoc 1.11 with Sphinx 9 does not."""
    for text in list(doctree.findall(nodes.Text)):
        shown = re.sub(r"^\[R[0-9a-f]{12}-(\w+)\]$", r"[\1]", text)
        if shown != text:
            text.parent.replace(text, nodes.Text(shown))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what is above."""
    stand_in_for_llama_cpp()
    app.add_role("name", name_role)
    app.add_directive("usage", Usage)
    app.connect("doctree-resolved", relabel_citations)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
