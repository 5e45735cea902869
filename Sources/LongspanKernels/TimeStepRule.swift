import CKernels

/// Scales and drops time steps of a state-space layer, a channel (Mamba) or head (Mamba-2) at a time:
/// `dt > threshold ? scale * dt : 0`. A token whose step is 0 is skipped: the state is neither decayed nor written.
///
/// This one hook carries LongMamba's token filtering, MambaExtend's and UPI's scaling. C: `lspan_dt_filter`.
public struct TimeStepFilter: Sendable, Equatable {
  /// Factors of each channel or head, finite and at least 0; empty for ones.
  public var scales: [Float]
  /// Steps up to these are dropped, strictly above them kept; empty to keep all.
  public var thresholds: [Float]

  /// A filter; without arguments it changes nothing.
  public init(scales: [Float] = [], thresholds: [Float] = []) {
    self.scales = scales
    self.thresholds = thresholds
  }
}

/// How a layer's time steps are made of what its projection gives: `+ bias`, softplus, a clamp, then the filter.
/// C: `lspan_dt_rule`.
public struct TimeStepRule: Sendable, Equatable {
  /// Of each channel or head; empty for none.
  public var bias: [Float]
  /// Whether steps are log(1 + e^x) of what is given, after the bias.
  public var appliesSoftplus: Bool
  /// At least 0. The filter comes after it, so it does not bring dropped tokens back.
  public var minimum: Float
  /// At least the minimum; infinity for no limit.
  public var maximum: Float
  /// What is done to the clamped steps; `nil` for nothing.
  public var filter: TimeStepFilter?

  /// A rule; without arguments it takes steps as they are.
  public init(
    bias: [Float] = [], appliesSoftplus: Bool = false, minimum: Float = 0, maximum: Float = .infinity,
    filter: TimeStepFilter? = nil
  ) {
    self.bias = bias
    self.appliesSoftplus = appliesSoftplus
    self.minimum = minimum
    self.maximum = maximum
    self.filter = filter
  }

  /// Calls `body` with the rule for C, whose addresses are valid until it returns.
  ///
  /// - Throws: ``LongspanError`` with ``LongspanError/Code/badShape`` if an array that is not empty does not have
  ///   `channels` elements, and what `body` throws.
  func withCode<Result>(
    channels: Int, _ body: (lspan_dt_rule) throws(LongspanError) -> Result
  ) throws(LongspanError) -> Result {
    if !bias.isEmpty { try requireCount(channels, in: bias.count, "time step bias") }
    defer { withExtendedLifetime(self) {} }
    let biasSpan = bias.span
    var rule = lspan_dt_rule(
      bias: biasSpan.baseAddress, softplus: appliesSoftplus ? 1 : 0, minimum: minimum, maximum: maximum,
      filter: nil)
    guard let filter else { return try body(rule) }
    if !filter.scales.isEmpty { try requireCount(channels, in: filter.scales.count, "time step scales") }
    if !filter.thresholds.isEmpty {
      try requireCount(channels, in: filter.thresholds.count, "time step thresholds")
    }
    let scales = filter.scales.span
    let thresholds = filter.thresholds.span
    let code = lspan_dt_filter(
      scales: scales.baseAddress, thresholds: thresholds.baseAddress, sequence_stride: 0)
    return try withUnsafePointer(to: code) { pointer throws(LongspanError) -> Result in
      rule.filter = pointer
      return try body(rule)
    }
  }
}
