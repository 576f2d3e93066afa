"""Sphinx configuration: make docs builds these pages into build/docs/; the code cells are executed on every build."""

import os

import jaxmed

# Most of the time is compilation: LLVM's optimisations take longer than they save with so few draws.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"

project = "jaxmed"
author = "jaxmed maintainers"
copyright = author
version = release = jaxmed.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx-mathjax-offline"]
exclude_patterns = ["README.md"]
html_theme = "furo"
html_title = f"jaxmed {release}"
html_show_copyright = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["tables.css"]

myst_enable_extensions = ["dollarmath", "amsmath", "deflist", "colon_fence"]
myst_heading_anchors = 3

# No output is kept in the sources: a page that raises fails the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True

napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Warns", "Warns")]
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
add_module_names = False
