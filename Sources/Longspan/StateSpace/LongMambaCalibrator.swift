import LongspanKernels

/// Makes a ``LongMambaCalibration`` of the time steps that a model has on windows of a text.
///
/// ```swift
/// var calibrator = try LongMambaCalibrator(shape, length: 2000, clamp: 0.05, aggregate: .average)
/// for window in windows {
///   for layer in 0..<shape.layers { try calibrator.add(layer: layer, steps: steps, decays: a) }
/// }
/// ```
public struct LongMambaCalibrator: Sendable {
  private let shape: StateSpaceShape
  private let length: Int
  private let clamp: Double
  private let aggregate: CalibrationAggregate
  /// Profiles and logarithms of receptive products of each layer, by window and channel.
  private var profiles: [[Float]]
  private var logProducts: [[Double]]

  /// - Parameters:
  ///   - length: tokens of a window, at least 1; the trained length or below it.
  ///   - clamp: the share C of the largest steps that are clamped, at least 0 and below 1.
  public init(
    _ shape: StateSpaceShape, length: Int, clamp: Double, aggregate: CalibrationAggregate
  ) throws(LongspanError) {
    guard length >= 1 else {
      throw LongspanError(.invalidArgument, "calibration windows of \(length) tokens: at least 1 is needed")
    }
    guard clamp >= 0, clamp < 1 else {
      throw LongspanError(
        .invalidArgument, "clamp \(clamp): a share of the steps is at least 0 and below 1")
    }
    self.shape = shape
    self.length = length
    self.clamp = clamp
    self.aggregate = aggregate
    profiles = Array(repeating: [], count: shape.layers)
    logProducts = Array(repeating: [], count: shape.layers)
  }

  /// Adds one window of one layer.
  ///
  /// - Parameters:
  ///   - steps: `[length, channels]`, as the scan uses them.
  ///   - decays: A, `[channels, states]`, with one state a head for Mamba-2.
  /// - Throws: ``/LongspanKernels/LongspanError`` if a step is not a number, or a shape does not fit.
  public mutating func add(layer: Int, steps: Span<Float>, decays: [Float]) throws(LongspanError) {
    guard profiles.indices.contains(layer), steps.count == length * shape.channels,
      !decays.isEmpty, decays.count % shape.channels == 0
    else {
      throw LongspanError(
        .badShape,
        "calibration of layer \(layer): \(steps.count) steps and \(decays.count) decays do not fit "
          + "\(shape.layers) layers, \(length) tokens and \(shape.channels) channels")
    }
    let states = decays.count / shape.channels
    for channel in 0..<shape.channels {
      let window = (0..<length).map { steps[$0 * shape.channels + channel] }
      guard window.allSatisfy({ $0.isFinite && $0 >= 0 }) else {
        throw LongspanError(
          .badValue, "calibration of layer \(layer): a time step of channel \(channel) is not a finite number"
        )
      }
      let profile = TimeStepProfile(window, clamp: clamp)
      profiles[layer] += profile.steps
      logProducts[layer].append(
        logReceptiveProduct(
          steps: profile.steps, decays: decays[channel * states..<(channel + 1) * states]))
    }
  }

  /// The calibration, once every layer has had the same number of windows.
  ///
  /// - Parameters:
  ///   - lengths: text lengths to list thresholds for, ascending.
  ///   - keepingProfiles: whether to keep what thresholds of any other length need: 4 bytes a step.
  public func calibration(
    modelHash: String, modelName: String, trainedLength: Int, defaultTheta: Double,
    lengths: [Int] = LongMambaCalibration.paperLengths, keepingProfiles: Bool = true
  ) throws(LongspanError) -> LongMambaCalibration {
    let windows = (logProducts.first?.count ?? 0) / max(shape.channels, 1)
    guard windows > 0, logProducts.allSatisfy({ $0.count == windows * shape.channels }) else {
      throw LongspanError(.invalidArgument, "calibration: not every layer has had its windows")
    }
    var calibration = LongMambaCalibration(
      modelHash: modelHash, modelName: modelName, trainedLength: trainedLength, length: length,
      windows: windows, clamp: clamp, aggregate: aggregate, defaultTheta: defaultTheta, lengths: lengths,
      layers: zip(profiles, logProducts).map { steps, products in
        let decays = (0..<windows * shape.channels).map { row in
          TimeStepProfile(sorted: Array(steps[row * length..<(row + 1) * length])).decay
        }
        func byChannel<Value>(_ values: [Value], _ combine: ([Value]) -> Value) -> [Value] {
          (0..<shape.channels).map { channel in
            combine((0..<windows).map { values[$0 * shape.channels + channel] })
          }
        }
        return LongMambaCalibration.Layer(
          decays: byChannel(decays, aggregate.of), logProducts: byChannel(products, aggregate.ofLogarithms),
          thresholds: [], profiles: steps)
      })
    for layer in calibration.layers.indices {
      calibration.layers[layer].thresholds = lengths.map {
        calibration.exactThresholds(layer: layer, length: $0)
      }
    }
    if !keepingProfiles {
      for layer in calibration.layers.indices { calibration.layers[layer].profiles = [] }
    }
    return calibration
  }
}
