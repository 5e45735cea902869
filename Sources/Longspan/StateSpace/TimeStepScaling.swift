import LongspanKernels

/// Scales time steps, so that a long text decays the state as a shorter one does: per layer or channel as MambaExtend does
/// with factors of its calibration (ICLR 2025), or by the trained length over the text's in the heads with the longest memory,
/// as Universal Position Interpolation does (UPI, ICLR 2026). It costs nothing in the scan, and holds for generated
/// tokens as well.
public struct TimeStepScaling: TimeStepPolicy {
  /// What the factors are.
  public enum Factors: Sendable, Equatable {
    /// One for each layer and channel, `[layers][channels]`, or `[layers][1]` for whole layers.
    case fixed([[Float]])
    /// The trained length over the text's, 1 for shorter texts, in the channels that are marked, `[layers][channels]`.
    case interpolated(trainedLength: Int, channels: [[Bool]])
  }

  /// What time steps are multiplied by.
  public let factors: Factors
  public let description: String

  /// - Throws: ``/LongspanKernels/LongspanError`` if a factor is not a finite number from 0 on.
  public init(_ factors: Factors, description: String) throws(LongspanError) {
    switch factors {
    case .fixed(let values):
      guard values.allSatisfy({ $0.allSatisfy { $0.isFinite && $0 >= 0 } }) else {
        throw LongspanError(.invalidArgument, "\(description): a factor is not a finite number from 0 on")
      }
    case .interpolated(let length, _):
      guard length >= 1 else {
        throw LongspanError(.invalidArgument, "\(description): a trained length of \(length) is below 1")
      }
    }
    self.factors = factors
    self.description = description
  }

  /// UPI with the share `top` of all channels or heads that forget least over a calibration window.
  ///
  /// UPI orders heads by their mean attention distance over long windows; this takes the receptive product instead, which
  /// falls with the mean step as that distance does, and is in the calibration already.
  public init(interpolating calibration: LongMambaCalibration, top: Double) throws(LongspanError) {
    guard top > 0, top <= 1 else {
      throw LongspanError(.invalidArgument, "upi: top \(top) is not a share above 0 and up to 1")
    }
    let products = calibration.layers.flatMap(\.logProducts).sorted(by: >)
    let count = max(1, Int((Double(products.count) * top).rounded()))
    guard products.count >= count else {
      throw LongspanError(.invalidArgument, "upi: the calibration has no layers")
    }
    let least = products[count - 1]
    try self.init(
      .interpolated(
        trainedLength: calibration.trainedLength,
        channels: calibration.layers.map { $0.logProducts.map { $0 >= least } }),
      description: "upi:top=\(top)")
  }

  public func check(_ shape: StateSpaceShape) throws(LongspanError) {
    let counts =
      switch factors {
      case .fixed(let values): values.map(\.count)
      case .interpolated(_, let channels): channels.map(\.count)
      }
    guard counts.count == shape.layers, counts.allSatisfy({ $0 == shape.channels || $0 == 1 }) else {
      throw LongspanError(
        .invalidArgument,
        "\(description): factors are for other layers or channels than the model's \(shape.layers) of \(shape.channels)"
      )
    }
  }

  public func filters(for step: ReadingStep, shape: StateSpaceShape) -> [TimeStepFilter?] {
    switch factors {
    case .fixed(let values):
      return values.map { layer in
        TimeStepFilter(
          scales: layer.count == 1 ? Array(repeating: layer[0], count: shape.channels) : layer)
      }
    case .interpolated(let trainedLength, let channels):
      guard step.textLength > trainedLength else { return [] }
      let factor = Float(Double(trainedLength) / Double(step.textLength))
      return channels.map { layer in
        guard layer.contains(true) else { return nil }
        let marked = layer.count == 1 ? Array(repeating: layer[0], count: shape.channels) : layer
        return TimeStepFilter(scales: marked.map { $0 ? factor : 1 })
      }
    }
  }
}
