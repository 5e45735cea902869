import Foundation
import Longspan
import LongspanKernels
import Testing

@testable import LongspanModels

/// Tiny random Mambas against Hugging Face transformers' plain path.
@Suite(.serialized) struct MambaOracleTests {
  private let fixtures: MambaFixtures

  init() throws {
    fixtures = try MambaFixtures()
  }

  private static let variants = KernelContext.variants.filter(\.isSupported).map(\.name)

  @Test(arguments: MambaFixtures.names, variants)
  func logitsMatchTransformers(name: String, isa: String) throws {
    let fixture = try fixtures[name]
    let context = try KernelContext(threads: 2, isa: isa)
    for (path, slice) in [
      (MambaFixtures.gguf(name), fixture.ggufLogits), (MambaFixtures.folder(name), fixture.folderLogits),
    ] {
      for storage in WeightStorage.allCases {
        let model = try #require(
          try LanguageModels.load(path: path, storage: storage, context: context) as? MambaModel)
        #expect(model.architecture == fixture.architecture)
        var workspace = Workspace()
        let logits = try model.sequence().logits(fixture.ids, &workspace)
        let expected = fixtures.logits(slice)
        #expect(logits.count == expected.count)
        let error = relativeError(logits, expected)
        #expect(error < storage.tolerance, "\(path) \(storage) under \(isa): relative error \(error)")
      }
    }
  }

  /// Both formats of a model that has no time step limits hold the same model.
  @Test(arguments: ["mamba", "mamba-untied", "mamba2"]) func formatsAgree(name: String) throws {
    let file = try MambaFixtures.load(name)
    let folder = try MambaModel(path: MambaFixtures.folder(name), context: file.context)
    #expect(file.parameterCount == folder.parameterCount)
    #expect(file.vocabularySize == folder.vocabularySize)
    for layer in 0..<file.layerCount {
      #expect(relativeError(file.decays(layer: layer), folder.decays(layer: layer)) < 1e-6)
    }
    for model in [file, folder] {
      #expect(model.tokenizer.encode(fixtures.text) == fixtures.textIds)
      #expect(model.tokenizer.endOfText == 2)
      #expect(try model.tokenizer.decode(fixtures.textIds) == fixtures.text)
    }
  }

  @Test(arguments: MambaFixtures.names) func chunksDoNotChangeTheResult(name: String) throws {
    let model = try MambaFixtures.load(name)
    let ids = Array(repeatElement(try fixtures[name].ids, count: 9).joined())
    var workspace = Workspace()
    var reference: [Float] = []
    for chunk in [ids.count, 1, 3, 8, 9, 64, 1000] {
      let sequence = try model.sequence()
      let logits = try sequence.readPrompt(ids, chunk: chunk, workspace: &workspace).array()
      #expect(sequence.count == ids.count)
      if reference.isEmpty { reference = logits }
      #expect(relativeError(logits, reference) < 1e-5, "chunk \(chunk)")
    }
  }

  @Test(arguments: MambaFixtures.names) func decodingEqualsReading(name: String) throws {
    let model = try MambaFixtures.load(name)
    let ids = try fixtures[name].ids
    var workspace = Workspace()
    let whole = try model.sequence().logits(ids, &workspace)
    let sequence = try model.sequence()
    var single: [Float] = []
    for id in ids { single += try sequence.logits([id], &workspace) }
    #expect(relativeError(single, whole) < 1e-5)
  }

  @Test(arguments: MambaFixtures.names) func snapshotsGoBack(name: String) throws {
    let model = try MambaFixtures.load(name)
    let ids = try fixtures[name].ids
    var workspace = Workspace()
    let sequence = try model.sequence()
    _ = try sequence.logits(Array(ids[..<10]), &workspace)
    let snapshot = try sequence.snapshot()
    let first = try sequence.logits(Array(ids[10...]), &workspace)
    try sequence.restore(snapshot)
    #expect(sequence.count == 10)
    #expect(try sequence.logits(Array(ids[10...]), &workspace) == first)
    // another sequence of the model goes on from there as well
    let other = try model.sequence()
    try other.restore(snapshot)
    #expect(try other.logits(Array(ids[10...]), &workspace) == first)
    sequence.begin(expecting: nil)
    #expect(sequence.count == 0)
    #expect(try sequence.logits(ids, &workspace) == model.sequence().logits(ids, &workspace))
  }

  @Test(arguments: MambaFixtures.names) func aFailedStepLeavesTheState(name: String) throws {
    let model = try MambaFixtures.load(name)
    let ids = try fixtures[name].ids
    var workspace = Workspace()
    let plain = try model.sequence()
    let failing = try model.sequence(
      SequenceOptions(timeSteps: FailingSteps(layer: model.layerCount - 1, position: 10)))
    for sequence in [plain, failing] { _ = try sequence.logits(Array(ids[..<10]), &workspace) }
    let refused: [[Int32]] = [[], [-1], [Int32(model.vocabularySize)]]
    for tokens in refused {
      #expect(throws: LongspanError.self) { _ = try plain.read(tokens, workspace: &workspace) }
    }
    // this one fails in the last layer, when all others have made their new state
    #expect(throws: LongspanError.self) { _ = try failing.read([1, 2, 3], workspace: &workspace) }
    let expected = try model.sequence().logits(ids, &workspace).suffix(
      (ids.count - 10) * model.vocabularySize)
    #expect(plain.count == 10 && failing.count == 10)
    let rest = try plain.logits(Array(ids[10...]), &workspace)
    #expect(relativeError(rest, expected) < 1e-5)
    let state = try failing.snapshot()
    try plain.restore(state)
    #expect(try plain.logits(Array(ids[10...]), &workspace) == rest)
  }

  /// Asks for rows that do not exist in one layer once a number of tokens was read.
  private struct FailingSteps: TimeStepPolicy {
    let layer: Int
    let position: Int

    var description: String { "failing" }
    var decimatedLayers: Set<Int> { [layer] }
    func check(_ shape: StateSpaceShape) throws(LongspanError) {}
    func filters(for step: ReadingStep, shape: StateSpaceShape) -> [TimeStepFilter?] { [] }
    func rowsToKeep(layer: Int, steps: Span<Float>, rows: Int, step: ReadingStep) -> [Int]? {
      step.position >= position ? [rows] : nil
    }
  }
}

/// What methods do to the time steps of a model.
@Suite(.serialized) struct MambaTimeStepTests {
  private let ids: [Int32]

  init() throws {
    ids = try MambaFixtures()["mamba"].ids
  }

  /// Filters every layer alike.
  private struct Uniform: TimeStepPolicy {
    let filter: TimeStepFilter

    var description: String { "uniform" }
    func check(_ shape: StateSpaceShape) throws(LongspanError) {}
    func filters(for step: ReadingStep, shape: StateSpaceShape) -> [TimeStepFilter?] {
      Array(repeating: filter, count: shape.layers)
    }
  }

  /// Keeps the first rows of a layer and the last one.
  private struct Dropping: TimeStepPolicy {
    let layer: Int
    let first: Int

    var description: String { "dropping" }
    var decimatedLayers: Set<Int> { [layer] }
    func check(_ shape: StateSpaceShape) throws(LongspanError) {}
    func filters(for step: ReadingStep, shape: StateSpaceShape) -> [TimeStepFilter?] { [] }
    func rowsToKeep(layer: Int, steps: Span<Float>, rows: Int, step: ReadingStep) -> [Int]? {
      step.isPrompt ? Array(0..<min(first, rows - 1)) + [rows - 1] : nil
    }
  }

  @Test(arguments: MambaFixtures.names) func filtersScaleAndDrop(name: String) throws {
    let model = try MambaFixtures.load(name)
    let channels = model.stateSpaceShape.channels
    var workspace = Workspace()
    func run(_ filter: TimeStepFilter) throws -> (logits: [Float], counts: [MambaSequence.StepCounts]) {
      let sequence = try model.sequence(SequenceOptions(timeSteps: Uniform(filter: filter)))
      return (try sequence.logits(ids, &workspace), sequence.stepCounts)
    }
    let plain = try model.sequence().logits(ids, &workspace)
    let ones = try run(TimeStepFilter(scales: [Float](repeating: 1, count: channels)))
    #expect(ones.logits == plain)
    let all = channels * ids.count
    #expect(ones.counts.allSatisfy { $0.total == all && $0.kept == all })
    let halved = try run(TimeStepFilter(scales: [Float](repeating: 0.5, count: channels)))
    #expect(relativeError(halved.logits, plain) > 1e-3)
    let some = try run(TimeStepFilter(thresholds: [Float](repeating: 0.3, count: channels)))
    #expect(relativeError(some.logits, plain) > 1e-3)
    #expect(some.counts.allSatisfy { $0.total == all && $0.kept > 0 && $0.kept < all })
    // the thresholds count the steps that are seen without a filter
    var seen = 0
    try model.observeTimeSteps(of: ids, workspace: &workspace) { layer, steps in
      if layer == 0 { seen = (0..<steps.count).count { steps[$0] > 0.3 } }
    }
    #expect(some.counts[0].kept == seen)
  }

  @Test(arguments: MambaFixtures.names) func stepsAreSeenAsTheScanUsesThem(name: String) throws {
    let model = try MambaFixtures.load(name)
    var workspace = Workspace()
    var layers: [Int] = []
    try model.observeTimeSteps(of: ids, workspace: &workspace) { layer, steps in
      layers.append(layer)
      #expect(steps.count == ids.count * model.stateSpaceShape.channels)
      for index in 0..<steps.count { #expect(steps[index] >= 0 && steps[index].isFinite) }
    }
    #expect(layers == Array(0..<model.layerCount))
    let failure = LongspanError(.cancelled, "enough")
    let error = #expect(throws: LongspanError.self) {
      try model.observeTimeSteps(of: ids, workspace: &workspace) { (_, _) throws(LongspanError) in
        throw failure
      }
    }
    #expect(error == failure)
  }

  /// A layer from which on only some rows go gives what it gives for the text of these rows alone, where it is the first: its
  /// convolution alone has seen the others.
  @Test(arguments: MambaFixtures.names) func droppedRowsLeaveTheStream(name: String) throws {
    let model = try MambaFixtures.load(name)
    var workspace = Workspace()
    let sequence = try model.sequence(SequenceOptions(timeSteps: Dropping(layer: 1, first: 4)))
    sequence.begin(expecting: ids.count)
    let hidden = try sequence.read(ids, workspace: &workspace)
    #expect(hidden.count == 5 * model.hiddenSize)
    #expect(sequence.count == ids.count)
    // the first rows come before anything that was dropped
    let plain = try model.sequence().read(ids, workspace: &workspace)
    #expect(
      relativeError(hidden.array().prefix(4 * model.hiddenSize), plain.array().prefix(4 * model.hiddenSize))
        < 1e-5)
    // the last one's later layers have not seen the dropped ones
    #expect(
      relativeError(hidden.array().suffix(model.hiddenSize), plain.array().suffix(model.hiddenSize)) > 1e-4)
    // what follows a prompt is not dropped
    let next = try sequence.read([3, 4, 5], workspace: &workspace)
    #expect(next.count == 3 * model.hiddenSize)
    sequence.begin(expecting: ids.count)
    let logits = try sequence.readPrompt(ids, chunk: 6, workspace: &workspace)
    #expect(logits.count == model.vocabularySize)
  }

  @Test func perplexityNeedsEveryToken() throws {
    let model = try MambaFixtures.load("mamba2")
    let dropping = PerplexityEvaluation(contextLength: 21, timeSteps: Dropping(layer: 0, first: 1))
    #expect(throws: LongspanError.self) { try dropping.run(model, tokens: ids) }
  }
}
