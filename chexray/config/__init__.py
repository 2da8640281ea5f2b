"""The run config: YAML (or flags) to a validated, immutable `RunConfig`, and back to YAML that runs again.

Precedence: `--set key=value`, then flags, then the file, then defaults. Paths are relative to the working directory.
Unknown keys are errors with the nearest known key, at any depth.
"""

from chexray.config.machine import EncodeConfig, RayConfig, StorageConfig
from chexray.config.models import RunConfig
from chexray.config.named import EncoderConfig, MetricConfig, SetConfig
from chexray.config.privacy import PrivacyConfig
from chexray.config.reading import load_config, parse_config, read_yaml, with_reid_weights
from chexray.config.utility import UtilityConfig
from chexray.suite_names import DEFAULT_ENCODERS

__all__ = [
    "DEFAULT_ENCODERS", "EncodeConfig", "EncoderConfig", "MetricConfig", "PrivacyConfig", "RayConfig", "RunConfig",
    "SetConfig", "StorageConfig", "UtilityConfig", "load_config", "parse_config", "read_yaml", "with_reid_weights",
]  # fmt: skip
