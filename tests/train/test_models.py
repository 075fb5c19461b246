"""Building networks with and without pretrained weights."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from pepr_mlops import paper_models
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.train import models


def test_renamed_models_resolve() -> None:
    import timm

    assert models.timm_name("gluon_xception65") == "xception65"
    assert models.timm_name("resnet18d") == "resnet18d"
    for row in paper_models.paper_models():
        assert timm.is_model(models.timm_name(row.model)), row.model


def test_an_unknown_model_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(WrongUse, match="did you mean 'resnet18d'"):
        models.check_name("resnet18dd")


@pytest.mark.parametrize(("name", "published"), [("resnet18d", 11_708_744), ("dla46_c", 1_301_400)])
def test_networks_have_the_published_parameters(name: str, published: int) -> None:
    network = models.build(name, classes=1000, channels=3, image_size=64, pretrained=False)
    assert sum(p.numel() for p in network.parameters()) == published
    assert {m.model: m.parameters for m in paper_models.paper_models()}[name] == published


def test_head_and_first_layer_follow_the_data() -> None:
    network = models.build("resnet18d", classes=7, channels=1, image_size=32, pretrained=False)
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 7)


@pytest.mark.slow
@pytest.mark.parametrize("row", paper_models.paper_models(), ids=lambda m: m.model)
def test_all_131_build_with_the_published_count_and_take_256_pixels(
    row: paper_models.PaperModel,
) -> None:
    """timm counts without the 256-pixel adaptations, which some transformers need."""
    import timm

    published = timm.create_model(models.timm_name(row.model))
    assert sum(p.numel() for p in published.parameters()) == row.parameters
    network = models.build(row.model, classes=7, channels=3, image_size=256, pretrained=False)
    with torch.inference_mode():
        assert network.eval()(torch.zeros(1, 3, 256, 256)).shape == (1, 7)


# Pretrained weights ----------------------------------------------------------------------------

LITE = "tf_efficientnet_lite0"


def _build(weights: Path | str, model: str = LITE, channels: int = 3) -> torch.nn.Module:
    return models.build(
        model, classes=2, channels=channels, image_size=64, pretrained=True, weights=str(weights)
    )


def test_real_weights_are_in_the_network_but_for_the_head(real_weights: Path) -> None:
    from safetensors.torch import load_file

    stored = load_file(real_weights)
    state = _build(real_weights).state_dict()
    assert torch.equal(state["conv_stem.weight"], stored["conv_stem.weight"])
    assert torch.equal(state["conv_head.weight"], stored["conv_head.weight"])
    assert state["classifier.weight"].shape == (2, 1280)


def test_grey_input_sums_the_colour_filters(real_weights: Path) -> None:
    from safetensors.torch import load_file

    stem = load_file(real_weights)["conv_stem.weight"]
    grey = _build(real_weights, channels=1).state_dict()["conv_stem.weight"]
    torch.testing.assert_close(grey, stem.sum(dim=1, keepdim=True))


def test_a_state_dict_is_read_without_pickle_code(real_weights: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    plain = tmp_path / "weights.pth"
    torch.save(load_file(real_weights), plain)
    assert torch.equal(
        _build(plain).state_dict()["conv_stem.weight"],
        load_file(real_weights)["conv_stem.weight"],
    )

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (print, ("code from a weights file ran",))

    torch.save({"x": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(WrongUse, match="no readable safetensors file or state dict"):
        _build(tmp_path / "evil.pth")


def test_weights_of_another_network_are_refused(real_weights: Path) -> None:
    with pytest.raises(WrongUse, match="does not fit resnet18d") as refused:
        _build(real_weights, model="resnet18d")
    assert "--no-pretrained" in str(refused.value)
    with pytest.raises(WrongUse, match="does not fit tf_efficientnet_lite1"):
        _build(real_weights, model="tf_efficientnet_lite1")


def test_absent_and_damaged_weights_are_named(real_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="there is no file"):
        _build(tmp_path / "absent.safetensors")
    half = tmp_path / "half.safetensors"
    half.write_bytes(real_weights.read_bytes()[: 1 << 20])
    with pytest.raises(WrongUse, match=r"half\.safetensors is no readable"):
        _build(half)


class _Hub(http.server.BaseHTTPRequestHandler):
    """Answers as Hugging Face's hub does for one file."""

    path_served = f"/timm/{LITE}.in1k/resolve/main/model.safetensors"
    content = b""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        found = self.path.split("?")[0] == self.path_served
        self.send_response(200 if found else 404)
        self.send_header("ETag", '"0123456789abcdef"')
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("Content-Length", str(len(self.content) if found else 0))
        self.end_headers()
        if with_body and found:
            self.wfile.write(self.content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_weights_are_downloaded_from_the_hub_and_cached(real_weights: Path, tmp_path: Path) -> None:
    """The real download path, from a hub on this machine; the second build needs no hub."""
    build = (
        "from pepr_mlops.train import models; import torch;"
        "from safetensors.torch import load_file;"
        f"n = models.build('{LITE}', classes=2, channels=3, image_size=64, pretrained=True);"
        f"w = load_file('{real_weights}')['conv_stem.weight'];"
        "print(torch.equal(n.state_dict()['conv_stem.weight'], w))"
    )
    _Hub.content = real_weights.read_bytes()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("HF_")},
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
            "HF_HOME": str(tmp_path),
            "HF_HUB_DISABLE_XET": "1",
        }
        for offline in ("0", "1"):
            done = subprocess.run(
                [sys.executable, "-c", build],
                env={**environment, "HF_HUB_OFFLINE": offline},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.stdout.strip() == "True", done.stderr
        hub.shutdown()
    done = subprocess.run(
        [sys.executable, "-c", build], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "True", done.stderr
    assert "Retry" not in done.stderr


def test_an_unreachable_hub_is_an_error_that_says_what_to_do(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(WorkFailed) as failed:
        models.build("resnet18d", classes=2, channels=3, image_size=64, pretrained=True)
    assert failed.value.reason == "missing_weights"
    for words in ("--weights", "--no-pretrained", "huggingface.co/timm/resnet18d.ra2_in1k"):
        assert words in str(failed.value)
    assert "offline mode" not in str(failed.value)  # which nobody has switched on
    assert "Retry" not in capfd.readouterr().err


def test_a_model_without_published_weights_is_never_trained_from_scratch_instead() -> None:
    with pytest.raises(WrongUse, match="no pretrained weights"):
        models.build("botnet50ts_256", classes=2, channels=3, image_size=64, pretrained=True)


def test_a_size_the_network_cannot_take_is_refused() -> None:
    with pytest.raises(WrongUse, match="does not take images of 8 pixels"):
        models.build("inception_v3", classes=2, channels=3, image_size=8, pretrained=False)


def test_a_transformer_is_built_for_the_size() -> None:
    network = models.build(
        "vit_tiny_patch16_224", classes=2, channels=3, image_size=64, pretrained=False
    )
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 2)


def test_cached_weights_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout of Hugging Face's cache: a reference, and a snapshot of that commit."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "torch"))
    assert models.cached_models() == set()
    repository = tmp_path / "models--timm--resnet18d.ra2_in1k"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    assert models.cached_models() == set()
    (snapshot / "model.safetensors").touch()
    assert models.cached_models() == {"resnet18d"}


def test_the_weights_of_a_run_have_a_name() -> None:
    assert models.weights_name("resnet18d", True, None) == "ra2_in1k"
    assert models.weights_name("resnet18d", True, "/data/mine.pth") == "mine.pth"
    assert models.weights_name("resnet18d", False, None) == "none"
    assert models.weights_name("gluon_resnet34_v1b", True, None) == "gluon_in1k"
