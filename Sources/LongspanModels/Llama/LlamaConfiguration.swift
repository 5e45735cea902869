import LongspanKernels

/// The shape of a Llama-type transformer (Touvron et al. 2023), read from a GGUF file's metadata.
public struct LlamaConfiguration: Sendable, Equatable {
  /// Transformer blocks.
  public let layers: Int
  /// Width of the residual stream.
  public let hidden: Int
  /// Width of the feed-forward layer.
  public let feedForward: Int
  /// Query heads Hq.
  public let heads: Int
  /// Key/value heads Hk.
  public let keyValueHeads: Int
  /// Head dimension D.
  public let headDimension: Int
  /// Channels of a head that rotate.
  public let rotaryDimension: Int
  /// Base of the rotary frequencies.
  public let ropeBase: Float
  /// Factor by which positions are divided (linear scaling), 1 for none.
  public let ropeScale: Float
  /// Added to the mean square in every RMSNorm.
  public let normEpsilon: Float
  /// Tokens the model was trained on at once.
  public let trainedContext: Int

  /// Reads the keys `llama.*`.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` naming a missing key, a value out of range, or what is not supported:
  ///   another architecture, experts, a rope scaling other than linear, head dimensions that differ or that the
  ///   attention kernels do not take.
  public init(_ file: borrowing GGUFFile) throws(LongspanError) {
    let architecture = try file.string("general.architecture")
    guard architecture == "llama" else {
      throw LongspanError(
        .unsupported, "\(file.name): architecture '\(architecture)' is not supported; llama is")
    }
    let name = file.name
    func size(_ key: String, _ value: Int) throws(LongspanError) -> Int {
      guard value > 0, value <= 1 << 28 else {
        throw LongspanError(.invalidFile, "\(name): \(key) is \(value), which is out of range")
      }
      return value
    }
    func number(_ key: String, _ value: Float) throws(LongspanError) -> Float {
      guard value.isFinite, value > 0 else {
        throw LongspanError(.invalidFile, "\(name): \(key) is \(value), which is out of range")
      }
      return value
    }
    layers = try size("llama.block_count", try file.int("llama.block_count"))
    hidden = try size("llama.embedding_length", try file.int("llama.embedding_length"))
    feedForward = try size("llama.feed_forward_length", try file.int("llama.feed_forward_length"))
    heads = try size("llama.attention.head_count", try file.int("llama.attention.head_count"))
    keyValueHeads = try size(
      "llama.attention.head_count_kv", try file.int("llama.attention.head_count_kv", default: heads))
    headDimension = try size(
      "llama.attention.key_length", try file.int("llama.attention.key_length", default: hidden / heads))
    rotaryDimension = try size(
      "llama.rope.dimension_count", try file.int("llama.rope.dimension_count", default: headDimension))
    ropeBase = try number("llama.rope.freq_base", try file.float("llama.rope.freq_base", default: 10000))
    normEpsilon = try number(
      "llama.attention.layer_norm_rms_epsilon", try file.float("llama.attention.layer_norm_rms_epsilon"))
    trainedContext = try size("llama.context_length", try file.int("llama.context_length"))

    let scaling = try file.string("llama.rope.scaling.type", default: "none")
    switch scaling {
    case "none":
      // how files named linear scaling before they named its type
      ropeScale = try number("llama.rope.scale_linear", try file.float("llama.rope.scale_linear", default: 1))
    case "linear":
      ropeScale = try number("llama.rope.scaling.factor", try file.float("llama.rope.scaling.factor"))
    default:
      throw LongspanError(
        .unsupported, "\(name): rope scaling '\(scaling)' is not supported; none and linear are")
    }
    let valueLength = try file.int("llama.attention.value_length", default: headDimension)
    guard valueLength == headDimension else {
      throw LongspanError(
        .unsupported, "\(name): key and value head dimensions \(headDimension) and \(valueLength) differ")
    }
    guard headDimension % 8 == 0, headDimension <= 256 else {
      throw LongspanError(
        .unsupported,
        "\(name): head dimension \(headDimension) is not supported; multiples of 8 up to 256 are")
    }
    guard heads % keyValueHeads == 0 else {
      throw LongspanError(
        .invalidFile, "\(name): \(heads) query heads are not a multiple of \(keyValueHeads) key/value heads")
    }
    guard rotaryDimension % 2 == 0, rotaryDimension <= headDimension else {
      throw LongspanError(
        .invalidFile, "\(name): rotary dimension \(rotaryDimension) does not fit heads of \(headDimension)")
    }
    guard try file.int("llama.expert_count", default: 0) == 0 else {
      throw LongspanError(.unsupported, "\(name): mixtures of experts are not supported")
    }
  }

  /// Radians a token of each pair of channels: base^(-2i / rotary dimension) (Su et al. 2021, eq. 15), over the scale.
  public var inverseFrequencies: [Float] {
    (0..<rotaryDimension / 2).map { pair in
      let exponent = -2 * Double(pair) / Double(rotaryDimension)
      return Float(power(Double(ropeBase), exponent) / Double(ropeScale))
    }
  }
}
