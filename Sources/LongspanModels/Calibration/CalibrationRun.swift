import Longspan
import LongspanKernels

/// Calibrates LongMamba on a model and a text (Ye et al. 2025, section 4): a plain prefill of each window, whose time steps are
/// recorded.
///
/// ```swift
/// let calibration = try CalibrationRun(length: 2000).run(model, tokens: tokens, modelHash: hash)
/// try calibration.encoded()
/// ```
public struct CalibrationRun: Sendable {
  /// Tokens before the first window, as in the authors' code.
  static let lead = 10

  /// Tokens of a window: not above what the model was trained on.
  public var length: Int
  /// Windows of the text to read.
  public var windows: Int
  /// The share C of a window's largest steps that is clamped.
  public var clamp: Double
  /// How the windows' numbers become one.
  public var aggregate: CalibrationAggregate
  /// Text lengths to list thresholds for.
  public var lengths: [Int]
  /// Whether thresholds of any other length can be computed of the result.
  public var keepsProfiles: Bool
  /// What a filter takes for theta where it is not told; `nil` for 5e-2 with a step a head and 1e-30 with one a channel,
  /// which the paper has for Mamba2-1.3B and Mamba-1.4B.
  public var theta: Double?

  /// A run over windows of `length` tokens.
  public init(
    length: Int, windows: Int = 5, clamp: Double = 0.05, aggregate: CalibrationAggregate = .average,
    lengths: [Int] = LongMambaCalibration.paperLengths, keepsProfiles: Bool = true, theta: Double? = nil
  ) {
    self.length = length
    self.windows = windows
    self.clamp = clamp
    self.aggregate = aggregate
    self.lengths = lengths
    self.keepsProfiles = keepsProfiles
    self.theta = theta
  }

  /// Window i begins at token trunc(N / windows * i + 10) of N.
  ///
  /// - Parameters:
  ///   - tokens: the text, long enough for every window.
  ///   - modelHash: of the model's file, ``ModelFingerprint``.
  ///   - progress: called after each window, with tokens as units.
  /// - Throws: ``/LongspanKernels/LongspanError`` if the text is too short, a number is out of range, or a time step is
  ///   not finite.
  public func run(
    _ model: any StateSpaceModel, tokens: [Int32], modelHash: String, progress: ProgressHandler? = nil
  ) throws(LongspanError) -> LongMambaCalibration {
    guard windows >= 1, windows <= 1 << 20 else {
      throw LongspanError(.invalidArgument, "\(windows) calibration windows are out of range")
    }
    guard zip(lengths, lengths.dropFirst()).allSatisfy({ $0 < $1 }), lengths.allSatisfy({ $0 >= 1 }) else {
      throw LongspanError(.invalidArgument, "the lengths to list thresholds for do not ascend")
    }
    let shape = model.stateSpaceShape
    var calibrator = try LongMambaCalibrator(shape, length: length, clamp: clamp, aggregate: aggregate)
    let starts = (0..<windows).map { Int(Double(tokens.count) / Double(windows) * Double($0)) + Self.lead }
    guard let last = starts.last, last + length <= tokens.count else {
      throw LongspanError(
        .invalidText,
        "the text has \(tokens.count) tokens, too few for \(windows) windows of \(length) at even distances")
    }
    var workspace = Workspace()
    for (index, start) in starts.enumerated() {
      try model.observeTimeSteps(of: Array(tokens[start..<start + length]), workspace: &workspace) {
        (layer, steps) throws(LongspanError) in
        try calibrator.add(layer: layer, steps: steps, decays: model.decays(layer: layer))
      }
      try report(
        ProgressUpdate(stage: "calibrating", completed: (index + 1) * length, total: windows * length),
        to: progress)
    }
    let states = model.decays(layer: 0).count / max(1, shape.channels)
    return try calibrator.calibration(
      modelHash: modelHash, modelName: model.name, trainedLength: model.trainedContext,
      defaultTheta: theta ?? (states > 1 ? 1e-30 : 5e-2), lengths: lengths, keepingProfiles: keepsProfiles)
  }
}
