"""Puts rotate.py into the template, as CloudFormation zips a function's text by itself.

    python scripts/embed_rotation.py

Without comments, docstrings and types, and a level is one blank: a template above 51,200 bytes could not be sent
without a bucket.
"""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

_DEPLOY = Path(__file__).parents[1] / "deploy"
FUNCTION = _DEPLOY / "rotation/rotate.py"
TEMPLATE = _DEPLOY / "cloudformation/model-ready.yaml"
BEGIN = "        ZipFile: |\n"
END = "      # --- End of what is embedded ---\n"


class _Bare(ast.NodeTransformer):
    def visit_Module(self, node: ast.Module) -> ast.AST:
        return self._without_docstring(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._without_docstring(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self._without_docstring(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        return None if node.module == "typing" else node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        assert node.value
        return ast.copy_location(ast.Assign([node.target], node.value), node)

    def _without_docstring(self, node: ast.Module | ast.ClassDef | ast.FunctionDef) -> ast.AST:
        if ast.get_docstring(node) is not None:
            del node.body[0]
        return self.generic_visit(node)


def bare() -> str:
    """Return the function as the template has it."""
    text = ast.unparse(_Bare().visit(ast.parse(FUNCTION.read_text()))) + "\n"
    return re.sub("(?m)^(    )+", lambda found: " " * (len(found[0]) // 4), text)


def with_function(template: str) -> str:
    """Return the template with the function as it should be."""
    before, _, rest = template.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{textwrap.indent(bare(), ' ' * 10)}{END}{after}"


if __name__ == "__main__":
    TEMPLATE.write_text(with_function(TEMPLATE.read_text()))
