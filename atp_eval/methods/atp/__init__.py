"""ATP-LLaVA (arXiv 2412.00447): scores, thresholds, the keep rule, and the method made of them."""

from atp_eval.methods.atp.adapter import Adapter, AdapterConfig, BaseModelId, load_adapter, new_modules, read_config
from atp_eval.methods.atp.method import ATP
from atp_eval.methods.atp.options import AtpOptions

__all__ = ["ATP", "Adapter", "AdapterConfig", "AtpOptions", "BaseModelId", "load_adapter", "new_modules", "read_config"]
