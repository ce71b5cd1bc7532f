"""Build hooks: formulas become MathML, names of claims links, and the reference pages are generated from the packages.

Formulas are converted while the site is built, so the pages need neither JavaScript nor the network, and a formula that
does not parse fails the strict build.
"""

import html
import logging
import re
from pathlib import Path

from math_core import LatexError, LatexToMathML
from mkdocs.structure.files import File
from mkdocs.utils import get_relative_url

log = logging.getLogger("mkdocs.hooks.vantage")

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "vantage"

MACROS = {
    "E": r"\mathbb{E}",
    "KL": r"D_{\mathrm{KL}}",
    "old": r"\mathrm{old}",
    "Var": r"\operatorname{Var}",
    "clip": r"\operatorname{clip}",
    "substack": r"\begin{subarray}{c}#1\end{subarray}",
}
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\(?:\(|\[)(.*?)\\(?:\)|\])</\1>', re.DOTALL)
UNRECOGNISED = re.compile(r"\$[^\s\d$<][^<]{0,40}")
VERBATIM = re.compile(r"<(code|pre|math)\b.*?</\1>", re.DOTALL)
CLAIM = re.compile(r'<code( id="eq-[\w-]+")?>(\d+\.\d+\.[\w.-]+)</code>')
ANCHORS = set(re.findall(r"#(eq-[\w-]+)", (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")))
CONVERTER = LatexToMathML(macros=MACROS, fancy_error=False)


def mathml(match: re.Match[str], page: str) -> str:
    """The MathML of one formula that arithmatex found; a warning, hence a failed strict build, if it does not parse."""
    display, latex = match[1] == "div", html.unescape(match[2]).strip()
    try:
        rendered = CONVERTER.convert_with_local_state(latex, displaystyle=display)
    except LatexError as error:
        log.warning("%s: the formula %s does not parse: %s", page, latex, " ".join(str(error).split()))
        return f"<code>{html.escape(latex)}</code>"
    return f'<div class="formula">{rendered}</div>' if display else rendered


def linked(match: re.Match[str], page: str) -> str:
    """The name of a claim as a link: in the theory to the page of its check, elsewhere to its formula there."""
    own, name = match[1], match[2]
    if own:
        return f'<a href="{get_relative_url("verify/", page)}" title="vantage verify --section {name}">{match[0]}</a>'
    parts = name.split(".")
    found = [f"eq-{'-'.join(parts[:n])}" for n in range(len(parts), 2, -1) if f"eq-{'-'.join(parts[:n])}" in ANCHORS]
    return f'<a href="{get_relative_url("theory/", page)}#{found[0]}">{match[0]}</a>' if found else match[0]


def modules(package: Path) -> list[str]:
    """The dotted names of a package's public modules, or of the one module that it is."""
    name = f"vantage.{package.stem}"
    if package.suffix == ".py":
        return [name]
    public = sorted(path.stem for path in package.glob("*.py") if not path.stem.startswith("_"))
    return [f"{name}.{module}" for module in public]


def reference() -> dict[str, str]:
    """`reference/NAME.md` → its text, one page a package or top-level module, in the order of the import law."""
    first = ["rollout", "recipe", "theory", "mdp", "control", "language", "world", "loop"]
    parts = [
        path
        for path in PACKAGE.iterdir()
        if not path.name.startswith("_") and (path.suffix == ".py" or (path / "__init__.py").exists())
    ]
    parts.sort(key=lambda path: (first.index(path.stem) if path.stem in first else len(first), path.stem))
    return {
        f"reference/{path.stem}.md": f"# vantage.{path.stem}\n\n"
        + "\n\n".join(f"::: {name}" for name in modules(path))
        + "\n"
        for path in parts
        if modules(path) and path.stem != "cli"
    }


def on_config(config):
    """Leave out of the navigation what is not written yet, and add the reference."""
    docs = Path(config.docs_dir)

    def written(entry):
        (title, target), *_ = entry.items()
        if isinstance(target, str):
            return entry if (docs / target).exists() else None
        kept = [found for found in map(written, target) if found]
        return {title: kept} if kept else None

    config.nav = [found for found in map(written, config.nav) if found]
    config.nav.append({"Reference": list(reference())})
    return config


def on_files(files, config):
    """Add the generated reference pages."""
    for path, text in reference().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_content(content, page, config, files):
    """Replace each formula of a page; warn of text that was meant as one, such as a table cell cut at its `|`."""
    content = FORMULA.sub(lambda match: mathml(match, page.file.src_uri), content)
    content = CLAIM.sub(lambda match: linked(match, page.url), content)
    for match in UNRECOGNISED.finditer(VERBATIM.sub("", content)):
        log.warning(r"%s: not recognised as a formula (in a table write \mid for |): %s", page.file.src_uri, match[0])
    return content
