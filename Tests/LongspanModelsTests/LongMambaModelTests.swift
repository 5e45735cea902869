import Foundation
import Longspan
import LongspanKernels
import LongspanModels
import Testing

/// The filter on a model whose recall is known in closed form.
@Suite struct LongMambaModelTests {
  typealias Model = HandBuiltMamba

  static func withModel<Result>(_ body: (any StateSpaceModel, String) throws -> Result) throws -> Result {
    try TestFiles.withTemporaryFile(Model.file()) { path in
      let model = try #require(try LanguageModels.load(path: path) as? any StateSpaceModel)
      return try body(model, path)
    }
  }

  static func calibration(_ model: any StateSpaceModel) throws -> LongMambaCalibration {
    let text = (0..<600).map { $0 % 8 == 3 ? Model.anchor : Model.filler }
    return try CalibrationRun(length: Model.trainedLength, windows: 3).run(
      model, tokens: text, modelHash: "fnv1a64:0")
  }

  /// Logits after a key, fillers and the question, which is read as a continuation.
  static func logits(
    _ model: any StateSpaceModel, key: Int32, fillers: Int,
    policy: any TimeStepPolicy = UnfilteredTimeSteps(),
    chunk: Int = 512
  ) throws -> [Float] {
    let sequence = try model.makeSequence(SequenceOptions(timeSteps: policy))
    var workspace = Workspace()
    let prompt = [key] + [Int32](repeating: Model.filler, count: fillers)
    sequence.begin(expecting: prompt.count)
    _ = try sequence.readPrompt(prompt, chunk: chunk, workspace: &workspace, progress: nil)
    let hidden = try sequence.read([Model.query], workspace: &workspace)
    let logits = try model.logits(of: hidden, rows: 0..<1, workspace: &workspace)
    return (0..<logits.count).map { logits.span[$0] }
  }

  static func predicted(_ logits: [Float]) -> Int32 {
    Int32(logits.indices.max { logits[$0] < logits[$1] } ?? -1)
  }

  @Test func forgetsWhereItsClosedFormSays() throws {
    try Self.withModel { model, _ in
      let last = Int(Model.reach)
      #expect(last > 2 * Model.trainedLength)
      for key in Model.keys {
        let remembered = try Self.logits(model, key: key, fillers: last)
        #expect(Self.predicted(remembered) == key)
        let forgotten = try Self.logits(model, key: key, fillers: last + 1)
        #expect(Self.predicted(forgotten) == Model.filler)
      }
    }
  }

  @Test func calibrationHasItsClosedForm() throws {
    try Self.withModel { model, _ in
      let calibration = try Self.calibration(model)
      let layer = calibration.layers[0]
      let decay = 8 * Model.anchorStep + 56 * Model.fillerStep
      #expect(abs(layer.decays[0] - decay) < 1e-6)
      #expect(abs(layer.logProducts[0] + decay) < 1e-6)
      let filter = try LongMambaFilter(calibration)
      #expect(filter.theta == 0.05 && filter.isGlobal(layer: 0, channel: 0))
    }
  }

  @Test(arguments: [512, 64, 5000])
  func recallsAt64TimesTheTrainedLengthWithTheFilterOnly(chunk: Int) throws {
    try Self.withModel { model, _ in
      let filter = try LongMambaFilter(Self.calibration(model))
      let fillers = 64 * Model.trainedLength - 1
      for key in Model.keys {
        let plain = try Self.logits(model, key: key, fillers: fillers, chunk: chunk)
        #expect(Self.predicted(plain) == Model.filler)
        let filtered = try Self.logits(model, key: key, fillers: fillers, policy: filter, chunk: chunk)
        #expect(Self.predicted(filtered) == key)
        // every filler was dropped: its channel is exactly empty
        #expect(filtered[Int(Model.filler)] == 0)
      }
    }
  }

  /// Pieces of a text whose length is known are filtered as the whole; without it the first piece is short.
  @Test func aTextInPiecesIsAsLongAsItWasSaidToBe() throws {
    try Self.withModel { model, _ in
      let filter = try LongMambaFilter(Self.calibration(model))
      let key = Model.keys[3]
      let pieces =
        [[key] + [Int32](repeating: Model.filler, count: 39)]
        + Array(repeating: [Int32](repeating: Model.filler, count: 40), count: 9)
      for (expected, filler) in [(400, Float(0)), (nil, nil)] as [(Int?, Float?)] {
        let sequence = try model.makeSequence(SequenceOptions(timeSteps: filter))
        var workspace = Workspace()
        sequence.begin(expecting: expected)
        var logits: [Float] = []
        for piece in pieces {
          let last = try sequence.readPrompt(piece, chunk: 512, workspace: &workspace, progress: nil)
          logits = (0..<last.count).map { last.span[$0] }
        }
        #expect(Self.predicted(logits) == key)
        if let filler {
          #expect(logits[Int(Model.filler)] == filler)
        } else {
          #expect(logits[Int(Model.filler)] > 0)
        }
      }
    }
  }

  @Test func aFilterThatDropsNothingChangesNoBit() throws {
    try Self.withModel { model, _ in
      let calibration = try Self.calibration(model)
      let key = Model.keys[1]
      for fillers in [10, 63, 64, 700] {
        let plain = try Self.logits(model, key: key, fillers: fillers)
        let zero = try LongMambaFilter(calibration, multiplier: 0)
        #expect(try Self.logits(model, key: key, fillers: fillers, policy: zero) == plain)
        let local = try LongMambaFilter(calibration, theta: 1)
        #expect(try Self.logits(model, key: key, fillers: fillers, policy: local) == plain)
        let gated = try LongMambaFilter(calibration, gate: 1000)
        #expect(try Self.logits(model, key: key, fillers: fillers, policy: gated) == plain)
      }
    }
  }

  @Test func scalingStretchesTheReach() throws {
    try Self.withModel { model, _ in
      let scaled = try TimeStepScaling(.fixed([[0.25]]), description: "scale:factor=0.25")
      // a quarter of every step, but a key that is written with a quarter as well: e' = e / 4, and the same ratio of both
      let step = Model.fillerStep / 4
      let c = step / (1 - exp(-step)) / (Model.keyStep / 4)
      let reach = Int(log((1 + c) / c) / step)
      let key = Model.keys[0]
      #expect(try Self.predicted(Self.logits(model, key: key, fillers: reach - 1, policy: scaled)) == key)
      #expect(
        try Self.predicted(Self.logits(model, key: key, fillers: reach + 2, policy: scaled)) == Model.filler)
    }
  }

  @Test func decimationDropsFillers() throws {
    try Self.withModel { model, _ in
      let policy = try TokenDecimation(layers: [0], base: 8, least: 1)
      let key = Model.keys[2]
      let logits = try Self.logits(model, key: key, fillers: 2000, policy: policy, chunk: 5000)
      #expect(logits.allSatisfy { $0.isFinite })
    }
  }

  @Test func calibrationRefusesWhatItCannotUse() throws {
    try Self.withModel { model, _ in
      let text = [Int32](repeating: 0, count: 100)
      for run in [
        CalibrationRun(length: 64, windows: 3), CalibrationRun(length: 0),
        CalibrationRun(length: 10, windows: 0),
        CalibrationRun(length: 10, windows: 1, clamp: -1),
        CalibrationRun(length: 10, windows: 1, lengths: [2, 1]),
      ] {
        #expect(throws: LongspanError.self) { try run.run(model, tokens: text, modelHash: "") }
      }
    }
  }
}
