import LongspanKernels

/// The shape of a Mamba (Gu and Dao 2023) or Mamba-2 (Dao and Gu 2024) language model.
public struct MambaConfiguration: Sendable, Equatable {
  /// What differs between the two.
  public enum Mixer: Sendable, Equatable {
    /// Mamba: a state of `[E, N]`, time steps of E channels projected from `timeStepRank` numbers.
    case selective(timeStepRank: Int)
    /// Mamba-2: a state of `[H, P, N]`, a time step a head; B and C of `groups` groups of heads.
    case dual(heads: Int, groups: Int)
  }

  /// Mamba's or Mamba-2's mixer, with its shape.
  public let mixer: Mixer
  /// Blocks of a norm and a mixer.
  public let layers: Int
  /// Width of the residual stream.
  public let hidden: Int
  /// Channels E of a layer.
  public let inner: Int
  /// State size N.
  public let stateSize: Int
  /// Taps W of the causal convolution.
  public let convolutionWidth: Int
  /// Added to the mean square in every RMSNorm.
  public let normEpsilon: Float
  /// What time steps are clamped to; 0 and infinity for no clamp.
  public let timeStepLimits: ClosedRange<Float>
  /// Tokens the model was trained on at once, as its file says. llama.cpp writes 2^20 for Mamba models, whatever they were
  /// trained on.
  public let trainedContext: Int

  /// - Throws: ``/LongspanKernels/LongspanError`` naming the size that is out of range, or that the kernels do not take.
  init(
    _ mixer: Mixer, layers: Int, hidden: Int, inner: Int, stateSize: Int, convolutionWidth: Int,
    normEpsilon: Float, timeStepLimits: (minimum: Float, maximum: Float) = (0, .infinity),
    trainedContext: Int,
    fileName: String
  ) throws(LongspanError) {
    func refuse(_ code: LongspanError.Code, _ what: String) -> LongspanError {
      LongspanError(code, "\(fileName): \(what)")
    }
    var sizes = [
      ("layers", layers), ("embedding length", hidden), ("inner size", inner), ("state size", stateSize),
      ("convolution width", convolutionWidth), ("trained context", trainedContext),
    ]
    switch mixer {
    case .selective(let rank): sizes.append(("time step rank", rank))
    case .dual(let heads, let groups): sizes += [("heads", heads), ("groups", groups)]
    }
    for (what, size) in sizes where size <= 0 || size > 1 << 28 {
      throw refuse(.invalidFile, "\(what) is \(size), which is out of range")
    }
    guard normEpsilon.isFinite, normEpsilon > 0 else {
      throw refuse(.invalidFile, "norm epsilon is \(normEpsilon), which is out of range")
    }
    guard timeStepLimits.minimum >= 0, timeStepLimits.minimum.isFinite,
      timeStepLimits.minimum <= timeStepLimits.maximum
    else {
      throw refuse(
        .invalidFile, "time step limits \(timeStepLimits.minimum) to \(timeStepLimits.maximum) are no range")
    }
    guard stateSize <= 256 else {
      throw refuse(.unsupported, "state size \(stateSize) is not supported; up to 256 is")
    }
    guard (2...4).contains(convolutionWidth) else {
      throw refuse(.unsupported, "a convolution of \(convolutionWidth) taps is not supported; 2 to 4 are")
    }
    if case .dual(let heads, let groups) = mixer {
      guard inner % heads == 0, heads % groups == 0 else {
        throw refuse(
          .invalidFile, "\(inner) channels, \(heads) heads and \(groups) groups do not divide each other")
      }
      guard inner / heads <= 256 else {
        throw refuse(.unsupported, "head dimension \(inner / heads) is not supported; up to 256 is")
      }
    }
    self.mixer = mixer
    self.layers = layers
    self.hidden = hidden
    self.inner = inner
    self.stateSize = stateSize
    self.convolutionWidth = convolutionWidth
    self.normEpsilon = normEpsilon
    self.timeStepLimits = timeStepLimits.minimum...timeStepLimits.maximum
    self.trainedContext = trainedContext
  }

  /// The architecture's name, as GGUF files have it.
  public var architecture: String {
    switch mixer {
    case .selective: "mamba"
    case .dual: "mamba2"
    }
  }

  /// Time steps of a token in a layer: channels E of Mamba, heads H of Mamba-2.
  public var timeStepChannels: Int {
    switch mixer {
    case .selective: inner
    case .dual(let heads, _): heads
    }
  }

  /// Channels of the causal convolution: x, and B and C with it in Mamba-2.
  public var convolutionChannels: Int {
    switch mixer {
    case .selective: inner
    case .dual(_, let groups): inner + 2 * groups * stateSize
    }
  }

  /// The state of a layer's scan: `[E, N]` or `[H, P, N]`.
  public var stateDimensions: [Int] {
    switch mixer {
    case .selective: [inner, stateSize]
    case .dual(let heads, _): [heads, inner / heads, stateSize]
    }
  }
}

extension MambaConfiguration {
  /// Reads the keys `mamba.*` or `mamba2.*` of a GGUF file, which llama.cpp's converter writes.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` naming a missing key, or what is not supported.
  init(_ file: borrowing GGUFFile) throws(LongspanError) {
    let architecture = try file.string("general.architecture")
    func key(_ name: String) -> String { "\(architecture).\(name)" }
    guard try !file.bool(key("ssm.dt_b_c_rms"), default: false) else {
      throw LongspanError(
        .unsupported, "\(file.name): norms of the time step, B and C (FalconMamba) are not supported")
    }
    let rank = try file.int(key("ssm.time_step_rank"))
    let mixer: Mixer =
      architecture == "mamba"
      ? .selective(timeStepRank: rank)
      : .dual(heads: rank, groups: try file.int(key("ssm.group_count"), default: 1))
    try self.init(
      mixer, layers: file.int(key("block_count")), hidden: file.int(key("embedding_length")),
      inner: file.int(key("ssm.inner_size")), stateSize: file.int(key("ssm.state_size")),
      convolutionWidth: file.int(key("ssm.conv_kernel")),
      normEpsilon: file.float(key("attention.layer_norm_rms_epsilon")),
      trainedContext: file.int(key("context_length")), fileName: file.name)
  }
}
