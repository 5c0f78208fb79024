from psdevise import store
from psdevise.report.tables import markdown


def write(run_folder: str) -> str:
    store.write_text(
        store.join(run_folder, "results.md"),
        markdown(store.read_json(store.join(run_folder, "results.json"))) + "\n",
    )
    return ""
