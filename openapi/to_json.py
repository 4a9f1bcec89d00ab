"""Write `openapi.json`, the REST contract as JSON: `python -m openapi.to_json`. Many tools read JSON only."""

import json
from pathlib import Path

import yaml


def main() -> None:
    """Convert `openapi.yaml`."""
    contract = Path(__file__).with_name("openapi.yaml")
    text = json.dumps(yaml.safe_load(contract.read_text()), indent=1, ensure_ascii=False)
    contract.with_suffix(".json").write_text(text + "\n")


if __name__ == "__main__":
    main()
