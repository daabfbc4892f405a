"""The doctor tries things for real, survives whatever they do, and says in a line how to mend them."""

import json
import os
import subprocess
import sys

import pytest

from embodied.cli import doctor
from embodied.doctor import checkup
from embodied.doctor.finding import Finding


@pytest.fixture
def shadow(tmp_path, monkeypatch):
    """`shadow(module, code)`: a module of that name that probes find before the real one."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")

    def write(module, code):
        (tmp_path / f"{module}.py").write_text(code)

    return write


def report(findings, capsys, monkeypatch, *words):
    monkeypatch.setattr(doctor, "checkup", lambda: iter(findings))
    status = doctor.main(list(words))
    return status, capsys.readouterr().out


FINE = Finding("Core", "torch", "ok", "2.13", core=True)
ABSENT = Finding("Simulators", "pybullet", "missing", "not installed", "pip install it")


def test_the_whole_checkup_on_this_machine():
    done = subprocess.run(
        [sys.executable, "-c", "from embodied.cli.doctor import main; raise SystemExit(main())", "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    states = {finding["name"]: finding["state"] for finding in found["findings"]}
    assert found["core"]
    rendering, simulators = {"egl", "osmesa", "glfw"}, {"metaworld", "pybullet", "habitat_sim", "miniwob"}
    figures = {"cores", "threads", "bfloat16", "libsvtav1", "libx264", "disk"}
    assert {"python", "torch", "transformers"} | rendering | simulators | figures <= set(states)
    assert states["torch"] == states["numpy"] == "ok"
    for finding in found["findings"]:
        assert finding["state"] in ("ok", "missing", "broken", "note") and finding["text"]
        assert finding["mend"] or finding["state"] in ("ok", "note"), finding


def test_a_report_is_aligned_and_says_how_to_mend(capsys, monkeypatch):
    status, text = report([FINE, ABSENT], capsys, monkeypatch)
    assert status == 0
    assert text.splitlines() == [
        "",
        "Core",
        "  ok      torch     2.13",
        "",
        "Simulators",
        "  missing pybullet  not installed",
        "                    -> pip install it",
        "",
        "The core works here. Missing: pybullet.",
    ]


def test_only_a_broken_core_fails(capsys, monkeypatch):
    ill = Finding("Core", "torch", "missing", "not installed", "pip install torch", core=True)
    broken = Finding("Video", "libx264", "broken", "does not read back", "reinstall")
    assert report([FINE, broken], capsys, monkeypatch)[0] == 0
    status, text = report([ill, ABSENT], capsys, monkeypatch)
    assert status == 1 and "The core does not work here: torch." in text
    status, text = report([ill], capsys, monkeypatch, "--json")
    assert status == 1 and json.loads(text)["core"] is False


def test_an_argument_it_does_not_know_is_one_line(capsys):
    assert doctor.main(["--jason"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err == "embodied-doctor: unknown argument '--jason'; there is --json\n"


def test_it_needs_no_package_itself():
    code = (
        "import sys, embodied.cli.doctor;"
        "print([m for m in ('torch', 'numpy', 'hydra', 'omegaconf', 'gymnasium', 'av', 'psutil') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "code, state, says",
    [
        ("import os; os.abort()", "broken", "crashed (SIGABRT)"),
        ("import time; time.sleep(60)", "broken", "no answer in"),
        ("raise ImportError('libfoo.so.1: cannot open shared object file')", "broken", "libfoo.so.1"),
        ("import sys; sys.exit(3)", "broken", "status 3"),
        ("import a_package_nobody_has", "missing", "needs a_package_nobody_has"),
        ("raise ModuleNotFoundError('no', name='habitat_sim')", "missing", "not installed"),
        ("print('hello from a chatty library'); __version__ = '0.3.4'", "ok", "0.3.4"),
    ],
)
def test_whatever_a_simulator_does_becomes_a_finding(shadow, code, state, says):
    shadow("habitat_sim", code)
    (finding,) = checkup.run("habitat_sim", patience=4.0 if "sleep" in code else 60.0)
    assert (finding.name, finding.state) == ("habitat_sim", state)
    assert says in finding.text
    assert finding.mend.startswith("conda install habitat-sim") or state == "ok"


def test_a_core_package_that_cannot_be_imported_or_crashes_breaks_the_core(shadow):
    for heavy in ("transformers", "diffusers", "peft", "accelerate", "tensorboard"):
        shadow(heavy, "")
    shadow("safetensors", "raise ImportError('built for another Python')")
    found = {finding.name: finding for finding in checkup.run("packages", core=True)}
    assert found["safetensors"].state == "broken" and "built for another Python" in found["safetensors"].text
    assert found["safetensors"].mend.startswith("pip install 'safetensors")
    assert found["python"].state == "ok"
    assert checkup.verdict(list(found.values()))[1] == 1
    shadow("torch", "import os; os.abort()")
    *_, last = checkup.run("packages", core=True)
    assert last.core and last.state == "broken" and "SIGABRT" in last.text


@pytest.mark.skipif(sys.platform != "linux", reason="EGL is Linux's")
def test_backends_are_judged_by_drawing(monkeypatch):
    monkeypatch.setenv("__EGL_VENDOR_LIBRARY_DIRS", "/nowhere")
    (finding,) = checkup.run("rendering", "egl")
    assert finding.state in ("broken", "missing")
    assert finding.mend == "apt-get install libegl1 libgl1-mesa-dri"


def drawing(monkeypatch, **states):
    def run(probe, backend):
        assert probe == "rendering"
        return [Finding("Pictures", backend, states[backend], "found", "do this")]

    monkeypatch.setattr(checkup, "run", run)
    return {finding.name: finding for finding in checkup.pictures()}


def test_what_mujoco_gl_asks_for_must_work(monkeypatch):
    works = {"egl": "ok", "osmesa": "missing", "glfw": "broken"}
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    assert drawing(monkeypatch, **works)["MUJOCO_GL"].text == "unset: pictures are drawn with egl"
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    found = drawing(monkeypatch, **works)
    assert found["MUJOCO_GL"].state == "broken" and "export MUJOCO_GL=egl" in found["MUJOCO_GL"].mend
    assert found["osmesa"].mend == "not needed; do this"


def test_with_no_backend_it_says_what_to_install(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    found = drawing(monkeypatch, egl="broken", osmesa="missing", glfw="missing")["MUJOCO_GL"]
    assert found.state == "broken" and "libegl1" in found.mend and "libosmesa6" in found.mend


def test_idle_cores_are_found(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = {finding.name: finding for finding in checkup.run("processor")}
    assert found["threads"].text == "torch uses 1"
    if found["cores"].text.startswith("1 usable"):
        pytest.skip("there is one core")
    assert "leaves cores idle" in found["threads"].mend
    assert "GFLOP/s" in found["bfloat16"].text
