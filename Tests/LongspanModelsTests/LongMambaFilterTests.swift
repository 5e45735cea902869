import Foundation
import Longspan
import LongspanKernels
import LongspanModels
import Testing

/// When and what the filter drops, and what a calibration file or an option is refused for.
@Suite struct LongMambaFilterTests {
  static let shape = StateSpaceShape(layers: 2, channels: 3)

  /// Head 0 forgets nothing to speak of, head 1 everything, head 2 is in between; each has large steps at every tenth token.
  static func calibration(keepingProfiles: Bool = true, length: Int = 50) throws -> LongMambaCalibration {
    var calibrator = try LongMambaCalibrator(shape, length: length, clamp: 0.05, aggregate: .average)
    for layer in 0..<2 {
      let steps = (0..<length * 3).map { index -> Float in
        let (token, head) = (index / 3, index % 3)
        return (token % 10 == 0 ? 0.5 : 0.01) * [0.001, 1, 0.1][head] * Float(1 + Double(token) * 1e-3)
      }
      try calibrator.add(layer: layer, steps: steps.span, decays: [-1, -16, -1])
    }
    return try calibrator.calibration(
      modelHash: "fnv1a64:1", modelName: "test", trainedLength: length, defaultTheta: 0.05,
      lengths: [40, 100, 1000], keepingProfiles: keepingProfiles)
  }

  static func prompt(_ length: Int) -> ReadingStep {
    ReadingStep(position: 0, count: length, promptLength: length)
  }

  @Test func globalHeadsAreThoseThatRemember() throws {
    let filter = try LongMambaFilter(Self.calibration())
    #expect(filter.isGlobal(layer: 0, channel: 0))
    #expect(!filter.isGlobal(layer: 0, channel: 1))
    // strictly above: theta equal to the product makes the head local
    let product = try Self.calibration().layers[0].logProducts[2]
    let below = try LongMambaFilter(Self.calibration(), theta: exp(product) * 0.999999)
    let above = try LongMambaFilter(Self.calibration(), theta: exp(product) * 1.000001)
    #expect(below.isGlobal(layer: 0, channel: 2))
    #expect(!above.isGlobal(layer: 0, channel: 2))
  }

  @Test func dropsOfGlobalHeadsOnlyAndOnlyBeyondTheWindow() throws {
    var filter = try LongMambaFilter(Self.calibration())
    for length in [0, 1, 49, 50] {
      #expect(filter.filters(for: Self.prompt(length), shape: Self.shape).isEmpty)
    }
    let filters = filter.filters(for: Self.prompt(500), shape: Self.shape)
    #expect(filters.count == 2)
    let thresholds = try #require(filters[1]?.thresholds)
    #expect(thresholds[0] > 0)
    #expect(thresholds[1] == -1)
    #expect(filters[1]?.scales == [])
  }

  @Test func thresholdsRiseWithTheLengthUpToThePlateau() throws {
    var filter = try LongMambaFilter(Self.calibration())
    var last: Float = 0
    for length in [51, 60, 100, 200, 500, 1000, 10_000, 1_000_000] {
      let filters = filter.filters(for: Self.prompt(length), shape: Self.shape)
      let threshold = try #require(filters[0]?.thresholds[0])
      #expect(threshold >= last)
      last = threshold
    }
    // the second largest step, to which the largest was clamped (k = 2)
    #expect(last == (0.5 as Float) * 0.001 * Float(1 + 30 * 1e-3))
  }

  @Test func gateAndDecoding() throws {
    var gated = try LongMambaFilter(Self.calibration(), gate: 300)
    #expect(gated.filters(for: Self.prompt(299), shape: Self.shape).isEmpty)
    #expect(gated.filters(for: Self.prompt(300), shape: Self.shape).count == 2)
    let generated = ReadingStep(position: 500, count: 1, isPrompt: false)
    #expect(gated.filters(for: generated, shape: Self.shape).isEmpty)
    var decoding = try LongMambaFilter(Self.calibration(), filtersDecoding: true)
    #expect(decoding.filters(for: generated, shape: Self.shape).count == 2)
  }

  @Test func aStreamedTextIsAsLongAsWhatWasRead() throws {
    var known = try LongMambaFilter(Self.calibration())
    var streamed = known
    let first = ReadingStep(position: 0, count: 50)
    #expect(streamed.filters(for: first, shape: Self.shape).isEmpty)
    let second = ReadingStep(position: 50, count: 150)
    #expect(
      streamed.filters(for: second, shape: Self.shape)
        == known.filters(for: Self.prompt(200), shape: Self.shape))
  }

  @Test func listedLengthsAreTakenFromTheNearest() throws {
    var grid = try LongMambaFilter(Self.calibration(), thresholds: .grid)
    var bare = try LongMambaFilter(Self.calibration(keepingProfiles: false))
    #expect(bare.thresholds == .grid)
    var exact = try LongMambaFilter(Self.calibration())
    let listed = exact.filters(for: Self.prompt(100), shape: Self.shape)
    // 550 is as near to 100 as to 1000: the smaller one
    for length in [71, 100, 550] {
      #expect(grid.filters(for: Self.prompt(length), shape: Self.shape) == listed)
      #expect(bare.filters(for: Self.prompt(length), shape: Self.shape) == listed)
    }
    #expect(
      grid.filters(for: Self.prompt(551), shape: Self.shape)
        == exact.filters(for: Self.prompt(1000), shape: Self.shape))
    #expect(throws: LongspanError.self) {
      try LongMambaFilter(Self.calibration(keepingProfiles: false), thresholds: .exact)
    }
  }

  @Test func multiplierZeroDropsNothing() throws {
    var filter = try LongMambaFilter(Self.calibration(), multiplier: 0)
    #expect(
      filter.filters(for: Self.prompt(500), shape: Self.shape)[0]?.thresholds.allSatisfy { $0 <= 0 } == true)
  }

  @Test func refusesWhatDoesNotFit() throws {
    let calibration = try Self.calibration()
    #expect(throws: LongspanError.self) { try LongMambaFilter(calibration, theta: -1) }
    #expect(throws: LongspanError.self) { try LongMambaFilter(calibration, multiplier: .nan) }
    let filter = try LongMambaFilter(calibration)
    #expect(throws: LongspanError.self) { try filter.check(StateSpaceShape(layers: 3, channels: 3)) }
    #expect(throws: LongspanError.self) { try filter.check(StateSpaceShape(layers: 2, channels: 4)) }
    var calibrator = try LongMambaCalibrator(Self.shape, length: 2, clamp: 0.05, aggregate: .maximum)
    #expect(throws: LongspanError.self) {
      let steps: [Float] = [1, 1, 1, 1, .nan, 1]
      try calibrator.add(layer: 0, steps: steps.span, decays: [-1, -1, -1])
    }
    #expect(throws: LongspanError.self) {
      let steps: [Float] = [1, 1, 1]
      try calibrator.add(layer: 0, steps: steps.span, decays: [-1, -1, -1])
    }
    #expect(throws: LongspanError.self) {
      try LongMambaCalibrator(Self.shape, length: 2, clamp: 1, aggregate: .maximum)
    }
  }

  @Test func damagedFilesAreRefused() throws {
    let text = String(decoding: try Self.calibration().encoded(), as: UTF8.self)
    let damages: [(String, String)] = [
      ("longspan.longmamba", "other"), ("\"version\":1", "\"version\":2"), ("\"avg\"", "\"median\""),
      ("\"length\":50", "\"length\":51"), ("\"length\":50", "\"length\":-1"),
      ("\"windows\":1", "\"windows\":2"),
      ("\"lengths\":[40,100", "\"lengths\":[100,40"), ("\"decays\":[", "\"decays\":[1,"),
      ("\"theta\"", "\"tata\""),
      ("{", "["),
    ]
    for (old, new) in damages {
      guard let place = text.range(of: old) else {
        Issue.record("\(old) is not in the file")
        continue
      }
      let damaged = text.replacingCharacters(in: place, with: new)
      #expect(throws: LongspanError.self, "\(old)") {
        try LongMambaCalibration(json: Array(damaged.utf8), name: "damaged.json")
      }
    }
  }
}

/// How filters are written on a command line.
@Suite struct TimeStepPolicyOptionTests {
  static func parse(_ text: String) throws(LongspanError) -> any TimeStepPolicy {
    try TimeStepPolicyOption.policy(text, trainedLength: 256, layers: 2) { () throws(LongspanError) in
      "fnv1a64:1"
    }
  }

  static func file(_ content: [UInt8]) throws -> String {
    let url = FileManager.default.temporaryDirectory.appending(path: "\(UUID().uuidString).json")
    try Data(content).write(to: url)
    return url.path
  }

  @Test func readsEveryPolicy() throws {
    let path = try Self.file(LongMambaFilterTests.calibration().encoded())
    defer { try? FileManager.default.removeItem(atPath: path) }
    #expect(try Self.parse("none") is UnfilteredTimeSteps)
    let filter = try #require(
      try Self.parse("longmamba:\(path),theta=1e-3,multiplier=2,gate=300,thresholds=grid,decode=on")
        as? LongMambaFilter)
    #expect(filter.theta == 1e-3 && filter.multiplier == 2 && filter.gate == 300)
    #expect(filter.thresholds == .grid && filter.filtersDecoding)
    #expect(try (Self.parse("longmamba:\(path)") as? LongMambaFilter)?.theta == 0.05)
    let step = ReadingStep(position: 0, count: 1024, promptLength: 1024)
    var automatic = try Self.parse("scale")
    #expect(automatic.filters(for: step, shape: LongMambaFilterTests.shape)[1]?.scales == [0.25, 0.25, 0.25])
    var fixed = try Self.parse("scale:factor=0.5,layers=1")
    #expect(fixed.filters(for: step, shape: LongMambaFilterTests.shape).map { $0?.scales[0] } == [1, 0.5])
    var upi = try Self.parse("upi:\(path),top=0.34")
    let scales = upi.filters(for: step, shape: LongMambaFilterTests.shape).map { $0?.scales }
    #expect(scales == [[50 / 1024, 1, 1], [50 / 1024, 1, 1]])
    let decimation = try #require(try Self.parse("decimamba:layers=1,least=4") as? TokenDecimation)
    #expect(decimation.base == 256 && decimation.least == 4 && decimation.layers == [1])
  }

  @Test func scalesComeFromAFile() throws {
    let text = #"{"format": "longspan.dt-scales", "version": 1, "layers": [[0.5, 1, 2], [0.25]]}"#
    let path = try Self.file(Array(text.utf8))
    defer { try? FileManager.default.removeItem(atPath: path) }
    var policy = try Self.parse("scale:file=\(path)")
    try policy.check(LongMambaFilterTests.shape)
    let filters = policy.filters(for: ReadingStep(position: 0, count: 1), shape: LongMambaFilterTests.shape)
    #expect(filters.map { $0?.scales } == [[0.5, 1, 2], [0.25, 0.25, 0.25]])
    #expect(throws: LongspanError.self) { try policy.check(StateSpaceShape(layers: 2, channels: 4)) }
  }

  @Test(arguments: [
    "", "longmamba", "longmamba:", "longmamba:/no/such/file", "none:x=1", "scale:factor=x", "scale:layers=2",
    "scale:other=1",
    "decimamba:layers=1+0", "decimamba:layers=1,beta=0", "decimamba:base=0", "upi", "other:x=1",
  ])
  func refusesWhatItDoesNotKnow(text: String) {
    #expect(throws: LongspanError.self) { try Self.parse(text) }
  }

  @Test func refusesACalibrationOfAnotherModel() throws {
    let path = try Self.file(LongMambaFilterTests.calibration().encoded())
    defer { try? FileManager.default.removeItem(atPath: path) }
    let error = #expect(throws: LongspanError.self) {
      try TimeStepPolicyOption.policy("longmamba:\(path)", trainedLength: 256, layers: 2) {
        () throws(LongspanError) in "fnv1a64:2"
      }
    }
    #expect(error?.message.contains("not of this model") == true)
  }

  @Test func decimationKeepsTheLargestAndTheLast() throws {
    let policy = try TokenDecimation(layers: [0, 1], base: 4, beta: 0.5, least: 1)
    let steps: [Float] = [1, 0, 5, 0, 2, 0, 0, 9, 3, 3, 0, 0]
    let step = ReadingStep(position: 0, count: 6, promptLength: 6)
    #expect(policy.rowsToKeep(layer: 0, steps: steps.span, rows: 6, step: step) == [1, 3, 4, 5])
    #expect(policy.rowsToKeep(layer: 1, steps: steps.span, rows: 6, step: step) == [3, 5])
    let generated = ReadingStep(position: 6, count: 6, isPrompt: false)
    #expect(policy.rowsToKeep(layer: 0, steps: steps.span, rows: 6, step: generated) == nil)
  }
}
