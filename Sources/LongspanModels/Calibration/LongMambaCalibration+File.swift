import Foundation
import Longspan
import LongspanKernels

/// A calibration as a file: JSON that people can read, but for the profiles, which are little-endian f32 in base64.
///
/// ```json
/// {
///   "format": "longspan.longmamba", "version": 1,
///   "model": {"name": "…", "hash": "fnv1a64:…", "trainedLength": 2048},
///   "length": 2000, "windows": 5, "clamp": 0.05, "aggregate": "avg", "theta": 0.05,
///   "lengths": [1000, 2000, …],
///   "layers": [{"decays": [ … ], "logProducts": [ … ], "thresholds": [[ … ], … ], "profiles": "…"}, … ]
/// }
/// ```
private struct CalibrationFile: Codable {
  struct Model: Codable {
    let name: String
    let hash: String
    let trainedLength: Int
  }

  struct Layer: Codable {
    let decays: [Double]
    let logProducts: [Double]
    let thresholds: [[Float]]
    let profiles: Data?
  }

  static let format = "longspan.longmamba"
  static let version = 1

  let format: String
  let version: Int
  let model: Model
  let length: Int
  let windows: Int
  let clamp: Double
  let aggregate: String
  let theta: Double
  let lengths: [Int]
  let layers: [Layer]
}

extension LongMambaCalibration {
  /// The calibration's file.
  public func encoded() throws(LongspanError) -> [UInt8] {
    let file = CalibrationFile(
      format: CalibrationFile.format, version: CalibrationFile.version,
      model: CalibrationFile.Model(name: modelName, hash: modelHash, trainedLength: trainedLength),
      length: length, windows: windows, clamp: clamp, aggregate: aggregate.rawValue, theta: defaultTheta,
      lengths: lengths,
      layers: layers.map { layer in
        CalibrationFile.Layer(
          decays: layer.decays, logProducts: layer.logProducts, thresholds: layer.thresholds,
          profiles: layer.profiles.isEmpty ? nil : Data(littleEndian: layer.profiles))
      })
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    guard let data = try? encoder.encode(file) else {
      throw LongspanError(
        .invalidArgument, "a number of the calibration is not finite, which JSON cannot hold")
    }
    return Array(data) + [UInt8(ascii: "\n")]
  }

  /// Reads a calibration file.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` naming the file and what is wrong with it.
  public init(path: String) throws(LongspanError) {
    try self.init(json: Array(TextFile.read(path).utf8), name: path)
  }

  /// Reads the bytes of a calibration file.
  ///
  /// - Parameter name: of the file, for errors.
  public init(json: [UInt8], name: String) throws(LongspanError) {
    let file: CalibrationFile
    do {
      file = try JSONDecoder().decode(CalibrationFile.self, from: Data(json))
    } catch {
      throw LongspanError(.invalidFile, "\(name): is not a calibration file: \(Self.reason(error))")
    }
    guard file.format == CalibrationFile.format, file.version == CalibrationFile.version else {
      throw LongspanError(
        .invalidFile,
        "\(name): is \(file.format) version \(file.version); \(CalibrationFile.format) version "
          + "\(CalibrationFile.version) is supported")
    }
    guard let aggregate = CalibrationAggregate(rawValue: file.aggregate) else {
      throw LongspanError(.invalidFile, "\(name): aggregate '\(file.aggregate)' is neither avg nor max")
    }
    self.init(
      modelHash: file.model.hash, modelName: file.model.name, trainedLength: file.model.trainedLength,
      length: file.length, windows: file.windows, clamp: file.clamp, aggregate: aggregate,
      defaultTheta: file.theta, lengths: file.lengths,
      layers: file.layers.map { layer in
        Layer(
          decays: layer.decays, logProducts: layer.logProducts, thresholds: layer.thresholds,
          profiles: layer.profiles?.littleEndianFloats ?? [])
      })
    try check(name)
  }

  private func check(_ name: String) throws(LongspanError) {
    func require(_ condition: Bool, _ what: String) throws(LongspanError) {
      guard condition else { throw LongspanError(.invalidFile, "\(name): \(what)") }
    }
    let limit = 1 << 28
    try require((1...limit).contains(length), "length \(length) is out of range")
    try require((1...limit).contains(windows), "windows \(windows) is out of range")
    try require((1...limit).contains(trainedLength), "trainedLength \(trainedLength) is out of range")
    try require(!layers.isEmpty && channels >= 1, "there are no layers")
    try require(
      lengths.allSatisfy { $0 >= 1 } && zip(lengths, lengths.dropFirst()).allSatisfy { $0 < $1 },
      "lengths do not ascend")
    let (rows, overflow) = windows.multipliedReportingOverflow(by: channels)
    let (steps, overflowSteps) = rows.multipliedReportingOverflow(by: length)
    try require(!overflow && !overflowSteps, "windows, channels and length are out of range")
    for (index, layer) in layers.enumerated() {
      try require(
        layer.decays.count == channels && layer.logProducts.count == channels
          && layer.thresholds.count == lengths.count
          && layer.thresholds.allSatisfy { $0.count == channels },
        "layer \(index) does not have a number for each of \(channels) channels")
      try require(
        layer.profiles.isEmpty || layer.profiles.count == steps,
        "layer \(index) has profiles of \(layer.profiles.count) steps, not \(steps)")
      try require(
        layer.thresholds.allSatisfy { $0.allSatisfy { $0 >= 0 } } && layer.profiles.allSatisfy { $0 >= 0 },
        "layer \(index) has a step below 0 or one that is not a number")
    }
    try require(hasProfiles || layers.allSatisfy(\.profiles.isEmpty), "only some layers have profiles")
  }

  private static func reason(_ error: any Error) -> String {
    switch error as? DecodingError {
    case .keyNotFound(let key, _)?: "'\(key.stringValue)' is missing"
    case .typeMismatch(_, let place)?, .valueNotFound(_, let place)?:
      "'\(place.codingPath.map(\.stringValue).joined(separator: "."))' is of another type"
    default: "it is not JSON"
    }
  }
}

extension Data {
  /// Floats as little-endian f32.
  fileprivate init(littleEndian floats: [Float]) {
    self.init(capacity: floats.count * 4)
    for float in floats {
      Swift.withUnsafeBytes(of: float.bitPattern.littleEndian) { append(contentsOf: $0) }
    }
  }

  fileprivate var littleEndianFloats: [Float] {
    withUnsafeBytes { bytes in
      stride(from: 0, to: bytes.count - bytes.count % 4, by: 4).map {
        Float(bitPattern: UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: $0, as: UInt32.self)))
      }
    }
  }
}
