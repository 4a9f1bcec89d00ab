import re
from pathlib import Path

from benchmarks import hive


def test_compose_file_reads_the_bank_proto_at_its_present_path() -> None:
    folder = Path(hive.__file__).parent
    compose = (folder / "compose.mjs").read_text()
    root = re.search(r"const root = '(.+)';", compose)
    proto = re.search(r"file: `\$\{root\}/(.+?)`", compose)
    assert root
    assert proto
    assert (folder / root[1] / proto[1]).is_file()
