"""Export a model of your own shape, here with random weights, and draw with it (needs torch).

python examples/custom_bundle.py
"""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hummingbird_export.facts import complete_facts
from hummingbird_export.package import WeightsLicence, export_bundle
from hummingbird_export.random_models import preset, random_networks
from hummingbird_runtime import TextToVideoPipeline


def main() -> None:
    shapes = preset("tiny")
    # A narrower U-Net; every field of its configuration may be changed like this.
    unet_shape = replace(shapes.unet, model_channels=32, num_head_channels=16)
    unet, vae, text_encoder = random_networks(replace(shapes, unet=unet_shape), seed=0)
    with TemporaryDirectory() as folder:
        bundle = export_bundle(
            Path("my-bundle"),
            unet=unet,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer_folder=shapes.write_tokenizer(Path(folder)),
            scheduler=shapes.scheduler,
            facts=complete_facts(shapes.facts, unet=unet, vae=vae),
            name="my-bundle",
            licence=WeightsLicence("CC0-1.0", "Random numbers, in the public domain."),
        )
    with TextToVideoPipeline.from_pretrained(bundle) as pipe:
        pipe("a red ball", num_frames=4).save("noise.png")


if __name__ == "__main__":
    main()
