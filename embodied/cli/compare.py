"""Compare results of evaluations, paired by episode or question: who is better, by how much, and how sure that is.

    embodied-compare runs/a/eval/x runs/b/eval/x
    embodied-compare runs/a/eval/x runs/b/eval/x runs/c/eval/x out=comparisons/abc

The first is the baseline. `out=` writes compare.json and compare.html there; `allow=true` compares results of
environments that differ.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from embodied.cli.app import command, fail, quoted


def work(config: DictConfig) -> dict[str, Any]:
    """Compare; the last comparison's `difference` (points), `p` and `n`."""
    from embodied.evaluation.compare import compare, table
    from embodied.evaluation.compare_page import compare_page
    from embodied.evaluation.results import command_line, read_eval_info
    from embodied.files import write_json, write_text

    names = [str(name) for name in config.results]
    infos = [read_eval_info(name) for name in names]
    result = compare(infos, names, config.allow, config.resamples, config.seed)
    for comparison in result["comparisons"]:
        print(f"A  {comparison['a']}\nB  {comparison['b']}\n\n{table(comparison)}\n")
        for remark in comparison["notes"]:
            print(f"Note: {remark}.")
        print(f"{comparison['verdict']}\n")
    if config.out:
        out = Path(config.out)
        write_json(out / "compare.json", result | {"command": command_line()})
        write_text(out / "compare.html", compare_page(result, command_line(), out))
        print(out / "compare.html")
    last = result["comparisons"][-1]["overall"]
    return {"difference": last["difference"], "p": last["p"], "n": last["n"]}


def read(words: list[str]) -> list[str]:
    """Folders stand by themselves on this command line; Hydra gets them as `results=[...]`."""
    folders = [word for word in words if not word.startswith("-") and ("=" not in word or Path(word).exists())]
    rest = [word for word in words if word not in folders]
    if len(folders) < 2 and not any(word.startswith(("-", "results=")) for word in rest):
        fail("compare", "give two or more results: embodied-compare runs/a/eval/x runs/b/eval/x")
    return [*rest, f"results=[{','.join(map(quoted, folders))}]"] if folders else rest


main = command("compare", work, read)

if __name__ == "__main__":
    main()
