"""How Sphinx builds the documentation: `nox -s docs`."""

from importlib.metadata import version as version_of

project = "model-launcher"
release = version = version_of("model-launcher")
copyright = "the model-launcher contributors"

extensions = ["myst_parser"]
myst_enable_extensions = ["deflist", "fieldlist"]
myst_heading_anchors = 3
nitpicky = True
exclude_patterns = ["_build", "generated"]

html_theme = "furo"
html_title = "model-launcher"
html_copy_source = False
html_show_sphinx = False
