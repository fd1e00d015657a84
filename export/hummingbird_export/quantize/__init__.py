"""Quantization of graphs: calibration, int8, weight-only storage, sensitivity, mixed precision."""

from hummingbird_export.quantize.calibrate import calibrate
from hummingbird_export.quantize.graph import QuantizationReport, quantize_graph
from hummingbird_export.quantize.ranges import load_ranges, save_ranges

__all__ = ["QuantizationReport", "calibrate", "load_ranges", "quantize_graph", "save_ranges"]
