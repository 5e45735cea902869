import LongspanKernels

/// A kernel that can be timed. Raw values are the names in tables and filters.
public enum BenchmarkKernel: Sendable, Hashable {
  /// Attention of a few queries over a cache.
  case attentionDecode
  /// Attention of many queries.
  case attentionPrefill
  /// Merging of partial attention.
  case attentionMerge
  /// Decode attention over listed tokens or blocks, in random order.
  case sparseDecode
  /// Prefill over listed tokens or blocks, a list for every 128 query tokens, not causal.
  case sparsePrefill
  /// Prefill under the chunk mask of lag-relative sparse attention.
  case lagPrefill
  /// LagKV scores.
  case lagScores
  /// Selection by scores.
  case select
  /// Compaction of a cache.
  case compact
  /// Scores, selection and compaction of windows, as a cache is compressed.
  case lagCompression
  /// Rotation of cached keys to other positions.
  case ropeShift
  /// Rotary embedding.
  case rope
  /// RMSNorm.
  case rmsNorm
  /// LayerNorm.
  case layerNorm
  /// Activation of a gate times its input.
  case gate(Activation)
  /// Conversion of layout and type.
  case convert
  /// Losses and entropies of logits.
  case logSoftmaxGather
  /// Rows of an embedding table.
  case embedding
  /// Decoding of weights.
  case dequantize(WeightType)
  /// Causal depthwise convolution with SiLU.
  case causalConv
  /// RMSNorm with a SiLU gate.
  case gatedRMSNorm
  /// Time steps of state-space layers: bias and softplus.
  case dtSteps
  /// Mamba's scan of one sequence with bias, softplus, D and gate.
  case selectiveScan
  /// Its update by one token a sequence.
  case selectiveUpdate
  /// The chunked SSD scan of one sequence with bias, softplus and D, keeping about `keep` percent of the tokens; 0 is
  /// without a filter, 100 with one that drops nothing.
  case ssdScan
  /// Its update by one token a sequence.
  case ssdUpdate
  /// A product through OpenBLAS.
  case linear(WeightType)
  /// A product with packed weights, in their native mode.
  case product(WeightType)

  /// Its name in tables and filters.
  public var name: String {
    switch self {
    case .attentionDecode: "attention_decode"
    case .attentionPrefill: "attention_prefill"
    case .attentionMerge: "attention_merge"
    case .sparseDecode: "sparse_decode"
    case .sparsePrefill: "sparse_prefill"
    case .lagPrefill: "lag_prefill"
    case .lagScores: "lag_scores"
    case .select: "select"
    case .compact: "compact"
    case .lagCompression: "lag_compression"
    case .ropeShift: "rope_shift"
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
    case .causalConv: "causal_conv"
    case .gatedRMSNorm: "gated_rms_norm"
    case .dtSteps: "dt_steps"
    case .selectiveScan: "selective_scan"
    case .selectiveUpdate: "selective_update"
    case .ssdScan: "ssd_scan"
    case .ssdUpdate: "ssd_update"
    case .linear(let type): "linear_\(type)"
    case .product(let type): "product_\(type)"
    }
  }

  /// The dimensions of its shape, in the order in which tables show them, and the least value of each.
  public var dimensions: [(key: String, least: Int)] {
    switch self {
    case .attentionDecode: [("Hq", 1), ("Hk", 1), ("D", 1), ("S", 1), ("T", 1), ("window", 0)]
    case .attentionPrefill: [("Hq", 1), ("Hk", 1), ("D", 1), ("N", 1), ("window", 0)]
    case .attentionMerge: [("P", 1), ("R", 1), ("D", 1)]
    case .sparseDecode: [("Hq", 1), ("Hk", 1), ("D", 1), ("S", 1), ("T", 1), ("K", 1), ("block", 1)]
    case .sparsePrefill: [("Hq", 1), ("Hk", 1), ("D", 1), ("N", 1), ("K", 1), ("block", 1)]
    case .lagPrefill: [("Hq", 1), ("Hk", 1), ("D", 1), ("N", 1), ("sink", 0), ("W", 1), ("K", 0)]
    case .lagScores: [("H", 1), ("D", 1), ("W", 1), ("P", 1)]
    case .lagCompression: [("H", 1), ("D", 1), ("W", 1), ("P", 1), ("K", 1)]
    case .select: [("R", 1), ("N", 1), ("K", 1)]
    case .compact: [("H", 1), ("D", 1), ("N", 1), ("K", 1)]
    case .ropeShift: [("T", 1), ("H", 1), ("D", 2)]
    case .rope, .convert: [("T", 1), ("H", 1), ("D", 2)]
    case .rmsNorm, .layerNorm, .gate: [("R", 1), ("C", 1)]
    case .logSoftmaxGather: [("R", 1), ("V", 1)]
    case .embedding: [("T", 1), ("V", 1), ("C", 1)]
    case .dequantize: [("M", 1), ("K", 1)]
    case .causalConv: [("L", 1), ("E", 1), ("W", 2)]
    case .gatedRMSNorm: [("R", 1), ("C", 1), ("G", 1)]
    case .dtSteps: [("L", 1), ("E", 1)]
    case .selectiveScan: [("L", 1), ("E", 1), ("N", 1)]
    case .selectiveUpdate: [("B", 1), ("E", 1), ("N", 1)]
    case .ssdScan: [("L", 1), ("H", 1), ("P", 1), ("N", 1), ("G", 1), ("keep", 0)]
    case .ssdUpdate: [("B", 1), ("H", 1), ("P", 1), ("N", 1), ("G", 1)]
    case .linear, .product: [("R", 1), ("M", 1), ("K", 1)]
    }
  }

  /// The element types that it can be timed with.
  public var elementTypes: [ElementType] {
    switch self {
    case .attentionMerge, .select, .dequantize, .linear, .product: [.f32]
    default: ElementType.allCases
    }
  }

  /// The dimension that counts what is chosen, and that of what it is chosen from.
  var choice: (kept: String?, of: String?) {
    switch self {
    case .sparseDecode: ("K", "S")
    case .sparsePrefill, .select, .compact: ("K", "N")
    case .lagPrefill, .lagCompression: ("K", "W")
    default: (nil, nil)
    }
  }

  /// Whether it works in place, on elements of the case's type.
  var changesOperands: Bool {
    switch self {
    case .compact, .lagCompression, .ropeShift: true
    default: false
    }
  }
}
