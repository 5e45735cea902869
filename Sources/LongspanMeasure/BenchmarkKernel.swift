import LongspanKernels

/// A kernel that can be timed. Raw values are the names in tables and filters.
public enum BenchmarkKernel: Sendable, Hashable {
  case attentionDecode
  case attentionPrefill
  case attentionMerge
  case rope
  case rmsNorm
  case layerNorm
  case gate(Activation)
  case convert
  case logSoftmaxGather
  case embedding
  case dequantize(WeightType)
  case linear(WeightType)

  /// Its name in tables and filters.
  public var name: String {
    switch self {
    case .attentionDecode: "attention_decode"
    case .attentionPrefill: "attention_prefill"
    case .attentionMerge: "attention_merge"
    case .rope: "rope"
    case .rmsNorm: "rms_norm"
    case .layerNorm: "layer_norm"
    case .gate(.silu): "gate_silu"
    case .gate(.geluTanh): "gate_gelu_tanh"
    case .gate(.geluErf): "gate_gelu_erf"
    case .convert: "convert"
    case .logSoftmaxGather: "log_softmax_gather"
    case .embedding: "embedding"
    case .dequantize(let type): "dequantize_\(type)"
    case .linear(let type): "linear_\(type)"
    }
  }

  /// The dimensions of its shape, in the order in which tables show them, and the least value of each.
  public var dimensions: [(key: String, least: Int)] {
    switch self {
    case .attentionDecode: [("Hq", 1), ("Hk", 1), ("D", 1), ("S", 1), ("T", 1), ("window", 0)]
    case .attentionPrefill: [("Hq", 1), ("Hk", 1), ("D", 1), ("N", 1), ("window", 0)]
    case .attentionMerge: [("P", 1), ("R", 1), ("D", 1)]
    case .rope, .convert: [("T", 1), ("H", 1), ("D", 2)]
    case .rmsNorm, .layerNorm, .gate: [("R", 1), ("C", 1)]
    case .logSoftmaxGather: [("R", 1), ("V", 1)]
    case .embedding: [("T", 1), ("V", 1), ("C", 1)]
    case .dequantize: [("M", 1), ("K", 1)]
    case .linear: [("R", 1), ("M", 1), ("K", 1)]
    }
  }

  /// The element types that it can be timed with.
  public var elementTypes: [ElementType] {
    switch self {
    case .attentionMerge, .dequantize, .linear: [.f32]
    default: ElementType.allCases
    }
  }
}
