import Foundation
import Longspan
import LongspanKernels

/// Reads time step policies as people write them: `longmamba:file.json,theta=0.05`; `scale:factor=0.25`; `upi:file.json`;
/// `decimamba:layers=1`.
public enum TimeStepPolicyOption {
  /// What can be written, for help texts.
  public static let help = """
    none; longmamba:FILE with theta=, multiplier=1, gate=0 (tokens), thresholds=exact|grid, decode=off|on; \
    scale with factor=auto (trained length over the text's) or a number or file=FILE, layers=0+1; \
    upi:FILE with top=0.2; decimamba with layers=0+1, base= (trained length), beta=0.5, least=20
    """

  /// - Parameters:
  ///   - trainedLength: tokens the model was trained on at once.
  ///   - layers: the model's state-space layers.
  ///   - fingerprint: of the model's weights file, which calibrations must be of.
  /// - Throws: ``/LongspanKernels/LongspanError`` that names what is wrong and lists what exists.
  public static func policy(
    _ text: String, trainedLength: Int, layers: Int, fingerprint: () throws(LongspanError) -> String
  ) throws(LongspanError) -> any TimeStepPolicy {
    let (name, rest) = OptionParameters.split(text, at: ":")
    switch name {
    case "none":
      guard rest == nil else { throw LongspanError(.invalidArgument, "none: has no parameters") }
      return UnfilteredTimeSteps()
    case "longmamba":
      let given = try OptionParameters(name, rest, hasLeading: true)
      return try longMamba(given, calibration(name, given, fingerprint))
    case "upi":
      let given = try OptionParameters(name, rest, hasLeading: true)
      try given.check(["top"])
      return try TimeStepScaling(
        interpolating: calibration(name, given, fingerprint),
        top: given.value("top", 0.2, "a number", Double.init))
    case "scale":
      return try scaling(OptionParameters(name, rest), text, trainedLength, layers)
    case "decimamba":
      let given = try OptionParameters(name, rest)
      try given.check(["layers", "base", "beta", "least"])
      return try TokenDecimation(
        layers: given.list("layers", of: "layers") ?? [layers / 2],
        base: given.value("base", trainedLength, "a whole number", Int.init),
        beta: given.value("beta", 0.5, "a number", Double.init),
        least: given.value("least", 20, "a whole number", Int.init))
    default:
      throw LongspanError(
        .invalidArgument,
        "no filter is named '\(name)'; there are none, longmamba, scale, upi, decimamba")
    }
  }

  private static func calibration(
    _ name: String, _ given: OptionParameters, _ fingerprint: () throws(LongspanError) -> String
  ) throws(LongspanError) -> LongMambaCalibration {
    guard let path = given.leading, !path.isEmpty else {
      throw LongspanError(
        .invalidArgument,
        "\(name): names no calibration file; `longspan calibrate` makes one: \(name):file.json")
    }
    let calibration = try LongMambaCalibration(path: path)
    let model = try fingerprint()
    guard calibration.modelHash == model else {
      throw LongspanError(
        .invalidArgument,
        "\(path): is a calibration of '\(calibration.modelName)' (\(calibration.modelHash)), not of this model (\(model))"
      )
    }
    return calibration
  }

  private static func longMamba(
    _ given: OptionParameters, _ calibration: LongMambaCalibration
  ) throws(LongspanError) -> any TimeStepPolicy {
    try given.check(["theta", "multiplier", "gate", "thresholds", "decode"])
    let thresholds: LongMambaFilter.Thresholds? = try given.value(
      "thresholds", nil, OptionParameters.oneOf(LongMambaFilter.Thresholds.self)
    ) {
      LongMambaFilter.Thresholds(rawValue: $0).map(Optional.some)
    }
    return try LongMambaFilter(
      calibration, theta: given.value("theta", nil, "a number") { Double($0).map(Optional.some) },
      multiplier: given.value("multiplier", 1, "a number", Float.init),
      gate: given.value("gate", 0, "a whole number", Int.init), thresholds: thresholds,
      filtersDecoding: given.value("decode", false, "on or off") {
        ["on": true, "off": false][$0]
      })
  }

  /// MambaExtend's factors: one for the whole model or some layers, or those of a file.
  private static func scaling(
    _ given: OptionParameters, _ text: String, _ trainedLength: Int, _ layers: Int
  ) throws(LongspanError) -> any TimeStepPolicy {
    try given.check(["factor", "layers", "file"])
    if let path = given.values["file"] {
      guard given.values.count == 1 else {
        throw LongspanError(.invalidArgument, "scale: a file leaves nothing for factor and layers to say")
      }
      return try TimeStepScaling(.fixed(scales(path)), description: text)
    }
    let listed = try given.list("layers", of: "layers")
    if let outside = listed?.first(where: { $0 < 0 || $0 >= layers }) {
      throw LongspanError(
        .invalidArgument, "scale: the model has no layer \(outside), only 0 to \(layers - 1)")
    }
    let chosen = (0..<layers).map { listed?.contains($0) ?? true }
    if given.values["factor"] ?? "auto" == "auto" {
      return try TimeStepScaling(
        .interpolated(trainedLength: trainedLength, channels: chosen.map { [$0] }), description: text)
    }
    let factor = try given.value("factor", Float(1), "auto or a number", Float.init)
    return try TimeStepScaling(.fixed(chosen.map { [$0 ? factor : 1] }), description: text)
  }

  /// Factors of a file `{"format": "longspan.dt-scales", "version": 1, "layers": [[…], …]}`: one for each channel or head
  /// of a layer, or one for the layer.
  private static func scales(_ path: String) throws(LongspanError) -> [[Float]] {
    struct ScalesFile: Decodable {
      let format: String
      let version: Int
      let layers: [[Float]]
    }
    let json = try TextFile.read(path)
    guard let file = try? JSONDecoder().decode(ScalesFile.self, from: Data(json.utf8)),
      file.format == "longspan.dt-scales", file.version == 1
    else {
      throw LongspanError(
        .invalidFile, "\(path): is not a file of time step scales, longspan.dt-scales version 1")
    }
    return file.layers
  }
}
