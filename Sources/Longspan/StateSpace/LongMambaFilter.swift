import Glibc
import LongspanKernels

/// LongMamba's token filtering (Ye et al. 2025): in global channels or heads, those whose state outlives the trained length,
/// tokens with small time steps are skipped, so that a long text decays the state about as far as a text of the trained
/// length does. Local ones are left alone.
///
/// Where the paper and its code leave a case open, this is what happens:
/// - Texts up to the calibration window's length, or shorter than `gate`, pass without a filter.
/// - A threshold of 0, which is what there is where the running sum never exceeds the window's, drops nothing.
/// - Beyond the length at which the threshold reaches the clamped plateau it stays there: about a share C of the tokens is
///   kept, and the decay grows again with the length.
/// - Comparisons are strict on both sides, in f32 for steps: a product equal to theta is local, a step equal to its
///   threshold is dropped.
/// - The length is the whole prompt's. Where it is not known, because a text streams in, it is what has been read with the
///   step at hand: the first tokens of such a text are not filtered, and thresholds rise as it grows.
/// - Generated tokens are not filtered, as in the authors' code, unless `filtersDecoding` asks for it.
/// - Each sequence has its own length and filter; there is no padding.
/// - Layers are counted among the state-space layers of a model, so other layers between them do not shift the numbers.
/// - The model's clamp of steps comes before the filter, so that a lower limit above 0 does not bring tokens back.
public struct LongMambaFilter: TimeStepPolicy {
  /// Where thresholds come from.
  public enum Thresholds: String, Sendable, CaseIterable {
    /// Computed for the text's own length.
    case exact
    /// Those of the nearest listed length, as in the paper.
    case grid
  }

  /// What thresholds and global channels are taken from.
  public let calibration: LongMambaCalibration
  /// The receptive product above which a channel or head is global.
  public let theta: Double
  /// Factor b of the thresholds.
  public let multiplier: Float
  /// Texts shorter than this are not filtered.
  public let gate: Int
  /// Whose thresholds a text gets.
  public let thresholds: Thresholds
  /// Whether generated tokens are filtered as well as the prompt.
  public let filtersDecoding: Bool
  /// The filters of the length that was asked for last.
  private var known: (length: Int, filters: [TimeStepFilter?])?

  /// - Parameters:
  ///   - theta: `nil` for the calibration's default.
  ///   - multiplier: finite and at least 0; 0 drops nothing.
  /// - Throws: ``/LongspanKernels/LongspanError`` naming a value out of range, or if exact thresholds are asked of a
  ///   calibration without profiles.
  public init(
    _ calibration: LongMambaCalibration, theta: Double? = nil, multiplier: Float = 1, gate: Int = 0,
    thresholds: Thresholds? = nil, filtersDecoding: Bool = false
  ) throws(LongspanError) {
    let theta = theta ?? calibration.defaultTheta
    guard theta >= 0, theta.isFinite else {
      throw LongspanError(.invalidArgument, "longmamba: theta \(theta) is not a finite number from 0 on")
    }
    guard multiplier >= 0, multiplier.isFinite else {
      throw LongspanError(
        .invalidArgument, "longmamba: multiplier \(multiplier) is not a finite number from 0 on")
    }
    let thresholds = thresholds ?? (calibration.hasProfiles ? .exact : .grid)
    guard thresholds == .grid || calibration.hasProfiles else {
      throw LongspanError(
        .invalidArgument,
        "longmamba: the calibration holds no profiles, so its listed lengths are all there is: "
          + "thresholds=grid")
    }
    self.calibration = calibration
    self.theta = theta
    self.multiplier = multiplier
    self.gate = gate
    self.thresholds = thresholds
    self.filtersDecoding = filtersDecoding
  }

  public var description: String {
    "longmamba:theta=\(theta)" + (multiplier == 1 ? "" : ",multiplier=\(multiplier)")
      + (gate == 0 ? "" : ",gate=\(gate)") + (thresholds == .exact ? "" : ",thresholds=grid")
      + (filtersDecoding ? ",decode=on" : "")
  }

  /// Whether a channel or head is global: which the calibration alone decides.
  public func isGlobal(layer: Int, channel: Int) -> Bool {
    calibration.layers[layer].logProducts[channel] > log(theta)
  }

  public func check(_ shape: StateSpaceShape) throws(LongspanError) {
    guard calibration.layers.count == shape.layers, calibration.channels == shape.channels else {
      throw LongspanError(
        .invalidArgument,
        "the calibration is of \(calibration.layers.count) layers of \(calibration.channels) channels, the model has "
          + "\(shape.layers) of \(shape.channels)")
    }
  }

  public mutating func filters(for step: ReadingStep, shape: StateSpaceShape) -> [TimeStepFilter?] {
    guard step.isPrompt || filtersDecoding else { return [] }
    let length = step.textLength
    guard length > calibration.length, length >= gate else { return [] }
    if let known, known.length == length { return known.filters }
    let filters = calibration.layers.indices.map { filter(layer: $0, length: length) }
    known = (length, filters)
    return filters
  }

  /// A step is never below 0, so a threshold of -1 lets every one pass.
  private func filter(layer: Int, length: Int) -> TimeStepFilter? {
    let channels = 0..<calibration.channels
    guard channels.contains(where: { isGlobal(layer: layer, channel: $0) }) else { return nil }
    let values =
      thresholds == .exact
      ? calibration.exactThresholds(layer: layer, length: length)
      : calibration.nearestThresholds(layer: layer, length: length)
    return TimeStepFilter(
      thresholds: channels.map { isGlobal(layer: layer, channel: $0) ? multiplier * values[$0] : -1 })
  }
}
