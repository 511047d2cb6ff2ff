"""What an ablation leaves: ablation.json for programs, ablation.html and ablation.png for people."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stages import software_versions
from stages.ablation.chart import draw_chart
from stages.ablation.page import as_json, as_page
from stages.ablation.results import Results
from stages.ablation.table import as_text
from wsss.config import Config, RunConfig, to_tree
from wsss.files import atomic_path, write_text
from wsss.json_files import canonical_json


@dataclass(frozen=True)
class Outputs:
    """Where they lie, and what costs depend on.

    Attributes:
        folder: of the ablation; no run, unless somebody gives a run the same name: files of both have their own names.
        machine: device and precision that costs are measured with.
        configs: by variant.
        classes: of the data.
    """

    folder: Path
    machine: RunConfig
    configs: Mapping[str, Config]
    classes: int

    @property
    def values_file(self) -> Path:
        """For programs."""
        return self.folder / "ablation.json"

    def write(self, results: Results, *, measure_costs: bool = False) -> Results:
        """Write all three anew.

        Args:
            results: so far.
            measure_costs: measure what the variants cost, unless that is known.

        Returns:
            The results with costs: those measured now, or kept from an earlier time where nothing has changed.
        """
        material = self._cost_material()
        costs = self._kept_costs(material)
        if measure_costs and not costs:
            from stages.ablation.cost import variant_costs

            print("\nmeasuring what the variants cost", flush=True)
            costs = variant_costs(self.configs, self.classes)
        results = replace(results, costs=costs)
        values = as_json(results) | {"cost_material": material if costs else None}
        write_text(self.values_file, json.dumps(values, ensure_ascii=False, allow_nan=False, indent=1))
        write_text(self.folder / "ablation.html", as_page(results))
        with atomic_path(self.folder / "ablation.png") as temporary:
            draw_chart(results).save(temporary, format="PNG", optimize=True)
        return results

    def text(self, results: Results) -> str:
        """The table for the terminal, and where the files are."""
        paths = [str(self.folder / name) for name in ("ablation.html", "ablation.png", "ablation.json")]
        return "\n".join([as_text(results), "", *paths])

    def _cost_material(self) -> str:
        """Hash of all that the costs depend on, as far as it is known here."""
        trees = {name: _sections(config) for name, config in self.configs.items()}
        parts = [trees, self.classes, self.machine.device, self.machine.precision, software_versions()]
        return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:16]

    def _kept_costs(self, material: str) -> dict[str, dict[str, float]]:
        try:
            before = json.loads(self.values_file.read_text(encoding="utf-8"))
            return dict(before["cost"]) if before["cost_material"] == material else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}


def _sections(config: Config) -> dict[str, Any]:
    return {name: to_tree(getattr(config, name)) for name in ("classify", "segment")}
