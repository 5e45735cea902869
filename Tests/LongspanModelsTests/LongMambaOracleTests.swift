import Foundation
import Longspan
import LongspanKernels
import LongspanModels
import Testing

/// Calibration numbers against float64 ones of an independent implementation, `Tests/Oracles/make_longmamba.py`.
@Suite struct LongMambaOracleTests {
  struct Case: Decodable, Sendable, CustomTestStringConvertible {
    struct Place: Decodable {
      let offset: Int
      let count: Int
    }

    let name: String
    let length: Int
    let channels: Int
    let states: Int
    let windows: Int
    let clamp: Double
    let aggregate: String
    let lengths: [Int]
    let steps: Place
    let decays: Place
    let sums: [Double]
    let logProducts: [Double]
    let thresholds: [[Double]]

    var testDescription: String { name }
  }

  static func cases() throws -> [Case] {
    struct File: Decodable { let cases: [Case] }
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    let data = try Data(contentsOf: TestFiles.fixture("longmamba/longmamba.json"))
    return try decoder.decode(File.self, from: data).cases
  }

  static func calibration(_ test: Case) throws -> LongMambaCalibration {
    let data = try Data(contentsOf: TestFiles.fixture("longmamba/longmamba.f32"))
    let floats = data.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
    func values(_ place: Case.Place) -> [Float] { Array(floats[place.offset..<place.offset + place.count]) }
    let aggregate = try #require(CalibrationAggregate(rawValue: test.aggregate))
    var calibrator = try LongMambaCalibrator(
      StateSpaceShape(layers: 1, channels: test.channels), length: test.length, clamp: test.clamp,
      aggregate: aggregate)
    let steps = values(test.steps)
    let window = test.length * test.channels
    for index in 0..<test.windows {
      let part = Array(steps[index * window..<(index + 1) * window])
      try calibrator.add(layer: 0, steps: part.span, decays: values(test.decays))
    }
    return try calibrator.calibration(
      modelHash: "fnv1a64:0", modelName: test.name, trainedLength: test.length, defaultTheta: 0.05,
      lengths: test.lengths)
  }

  @Test(arguments: try cases())
  func equalsTheOracle(test: Case) throws {
    let layer = try Self.calibration(test).layers[0]
    for channel in 0..<test.channels {
      #expect(abs(layer.decays[channel] - test.sums[channel]) <= 1e-12 * test.sums[channel])
      #expect(
        abs(layer.logProducts[channel] - test.logProducts[channel]) <= 1e-9
          * (1 + abs(test.logProducts[channel])))
      for index in test.lengths.indices {
        // rounded to f32; where a running sum passes the window's by less than rounding, the point before or after it
        let want = test.thresholds[index][channel]
        #expect(
          abs(Double(layer.thresholds[index][channel]) - want) <= 2e-7 * want,
          "\(test.name), length \(test.lengths[index]), channel \(channel)")
      }
    }
  }

  @Test(arguments: try cases())
  func survivesItsFile(test: Case) throws {
    let calibration = try Self.calibration(test)
    #expect(try LongMambaCalibration(json: calibration.encoded(), name: "file") == calibration)
  }
}
