"""Looking at a folder that somebody collected: what is it, and how is it read?

`inspect_folder` tries the known layouts, then lists, then exports of labelling tools, then folders named by class.
"""

from pathlib import Path

from data.own.exports import find_export
from data.own.found import Found, Tagged
from data.own.layouts import find_class_folders, find_layout
from data.own.splits import stratified_validation
from data.own.tables import find_table
from data.own.tree import WRITTEN, scan_tree
from wsss.errors import UserError, listed

__all__ = ["WRITTEN", "Found", "Tagged", "inspect_folder", "stratified_validation"]


def inspect_folder(root: Path) -> Found:
    """Say what a folder holds and how it is read; nothing is written.

    Raises:
        UserError: no photographs, no tags, or a list that is damaged.
    """
    tree = scan_tree(root)
    for look in (find_layout, find_table, find_export, find_class_folders):
        found = look(tree)
        if found is not None:
            return found
    lists = f" Lists there: {listed(list(tree.lists), ', ')}." if tree.lists else ""
    raise UserError(
        f"{root}: {len(tree.images)} photographs and no tags.{lists}\n"
        "Expected a folder per class, a CSV image,tags, a COCO JSON, VOC annotations, or an export of Label Studio or "
        "CVAT: add one of them (docs/data.md)."
    )
