import Glibc
import LongspanKernels

/// How numbers of several calibration windows become one.
public enum CalibrationAggregate: String, Sendable, CaseIterable {
  /// Their mean.
  case average = "avg"
  /// The largest.
  case maximum = "max"
}

/// What LongMamba measures of a model once (Ye et al. 2025, section 4): for each channel or head how far its state decays
/// over a window of the length the model was trained on, and which steps to drop so that it decays no further over a longer
/// text.
public struct LongMambaCalibration: Sendable, Equatable {
  /// The lengths for which the authors' code makes thresholds, in tokens. Those up to the window's are without a filter.
  public static let paperLengths = [
    1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 30, 36, 44, 54, 64, 80, 96, 120, 144, 168, 192,
  ].map { $0 * 1000 }

  /// Numbers of one layer; arrays are by channel (Mamba) or head (Mamba-2).
  public struct Layer: Sendable, Equatable {
    /// Sum of the clamped steps of a window.
    public var decays: [Double]
    /// Natural logarithm of the receptive product: the share of a state that is left after a window.
    public var logProducts: [Double]
    /// Thresholds by length, in the order of ``LongMambaCalibration/lengths``.
    public var thresholds: [[Float]]
    /// Clamped steps in descending order, `[windows, channels, length]`, from which thresholds of any length follow; empty
    /// where they were left out.
    public var profiles: [Float]

    /// A layer's numbers; ``LongMambaCalibrator`` makes them of a model's steps.
    public init(decays: [Double], logProducts: [Double], thresholds: [[Float]], profiles: [Float]) {
      self.decays = decays
      self.logProducts = logProducts
      self.thresholds = thresholds
      self.profiles = profiles
    }
  }

  /// SHA-256 of the model's weights file, in hexadecimal digits.
  public var modelHash: String
  /// The model's name.
  public var modelName: String
  /// Tokens the model was trained on at once.
  public var trainedLength: Int
  /// Tokens of a window.
  public var length: Int
  /// Windows that were read.
  public var windows: Int
  /// The share C of a window's largest steps that is clamped.
  public var clamp: Double
  /// How the windows' numbers became one.
  public var aggregate: CalibrationAggregate
  /// The receptive product above which a channel or head is global where a filter does not say otherwise.
  public var defaultTheta: Double
  /// Lengths of ``Layer/thresholds``, ascending.
  public var lengths: [Int]
  /// Of every layer, from the first on.
  public var layers: [Layer]

  /// A calibration of these parts.
  public init(
    modelHash: String, modelName: String, trainedLength: Int, length: Int, windows: Int, clamp: Double,
    aggregate: CalibrationAggregate, defaultTheta: Double, lengths: [Int], layers: [Layer]
  ) {
    self.modelHash = modelHash
    self.modelName = modelName
    self.trainedLength = trainedLength
    self.length = length
    self.windows = windows
    self.clamp = clamp
    self.aggregate = aggregate
    self.defaultTheta = defaultTheta
    self.lengths = lengths
    self.layers = layers
  }

  /// Channels or heads of a layer.
  public var channels: Int { layers.first?.decays.count ?? 0 }
  /// Whether thresholds of any length can be computed.
  public var hasProfiles: Bool { layers.allSatisfy { !$0.profiles.isEmpty } }

  /// How many channels or heads of a layer have a receptive product above theta.
  public func globalChannels(layer: Int, theta: Double) -> Int {
    layers[layer].logProducts.count { $0 > log(theta) }
  }

  /// Thresholds of a layer for a text of `length` tokens, from the profiles.
  func exactThresholds(layer: Int, length: Int) -> [Float] {
    let profiles = layers[layer].profiles
    return (0..<channels).map { channel in
      let values = (0..<windows).map { window in
        let first = (window * channels + channel) * self.length
        return TimeStepProfile(sorted: Array(profiles[first..<first + self.length])).threshold(length: length)
      }
      return aggregate.of(values)
    }
  }

  /// Thresholds of a layer for the listed length that is nearest to `length`, the smaller of two that are as near.
  func nearestThresholds(layer: Int, length: Int) -> [Float] {
    let nearest = lengths.indices.min { abs(lengths[$0] - length) < abs(lengths[$1] - length) }
    guard let nearest else { return Array(repeating: 0, count: channels) }
    return layers[layer].thresholds[nearest]
  }
}

extension CalibrationAggregate {
  func of(_ values: [Float]) -> Float {
    switch self {
    case .average: Float(values.reduce(0) { $0 + Double($1) } / Double(max(values.count, 1)))
    case .maximum: values.max() ?? 0
    }
  }

  func of(_ values: [Double]) -> Double {
    switch self {
    case .average: values.reduce(0, +) / Double(max(values.count, 1))
    case .maximum: values.max() ?? 0
    }
  }

  /// Of numbers that are given, and wanted, as their logarithms.
  func ofLogarithms(_ values: [Double]) -> Double {
    let largest = values.max() ?? -.infinity
    guard self == .average, largest.isFinite else { return largest }
    return largest + log(values.reduce(0) { $0 + exp($1 - largest) } / Double(values.count))
  }
}
