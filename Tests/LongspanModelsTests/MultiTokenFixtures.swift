import Longspan
import LongspanKernels
import Testing

@testable import LongspanModels

/// The model, text and logits of `make_dmtd.py`, and sequences to compare with them.
struct MultiTokenFixtures: Decodable {
  struct Case: Decodable, Sendable, CustomTestStringConvertible {
    let cycle: Int
    let early: Int
    let late: Int
    let phase: String
    /// Lengths of a prompt, and of what is generated after it.
    let turns: [[Int]]
    let logits: OracleFloats.Slice

    var tokens: Int { turns.joined().reduce(0, +) }
    var testDescription: String { "cycle \(cycle), early \(early), late \(late), \(phase), \(turns)" }

    func decoding() throws -> MultiTokenDecoding {
      try MultiTokenDecoding(
        cycle: cycle, lateLayers: late, earlyLayers: early, phase: #require(.init(rawValue: phase)))
    }
  }

  let ids: [Int32]
  let stride: Int
  let cases: [Case]

  static let file = TestFiles.fixture("dmtd/dmtd.gguf").path

  static func load() throws -> Self { try TestFiles.json(Self.self, "dmtd/dmtd.json") }

  static func model(isa: String? = nil) throws -> LlamaModel {
    let context =
      if let isa { try KernelContext(threads: 2, isa: isa) } else { try KernelContext(threads: 2) }
    return try LlamaModel(path: file, storage: .f32, context: context)
  }

  /// Every schedule that tests go through: cycles, splits of the five layers and phases.
  static func schedules(cycles: [Int] = [1, 2, 3, 4, 6]) throws -> [MultiTokenDecoding] {
    var schedules: [MultiTokenDecoding] = []
    for cycle in cycles {
      for (early, late) in [(0, 2), (2, 1)] {
        for phase in MultiTokenDecoding.Phase.allCases {
          schedules.append(
            try MultiTokenDecoding(cycle: cycle, lateLayers: late, earlyLayers: early, phase: phase))
        }
      }
    }
    return schedules
  }
}

extension LlamaModel {
  func sequence(
    _ decoding: MultiTokenDecoding, policy: any KVCachePolicy = DensePolicy(), type: ElementType = .f32
  ) throws -> LlamaMultiTokenSequence {
    let options = SequenceOptions(policy: policy, cacheType: type, capacity: 64, decoding: decoding)
    return try #require(makeSequence(options) as? LlamaMultiTokenSequence)
  }
}

extension ModelSequence {
  /// The logits of every token, read in steps of at most `step`.
  func logits(
    _ tokens: some Collection<Int32>, step: Int, _ model: LlamaModel, _ workspace: inout Workspace
  ) throws -> [Float] {
    let tokens = Array(tokens)
    var logits: [Float] = []
    var first = 0
    while first < tokens.count {
      let end = first + stepLength(limit: min(step, tokens.count - first))
      let hidden = try read(Array(tokens[first..<end]), workspace: &workspace)
      logits += try model.logits(of: hidden, rows: 0..<end - first, workspace: &workspace).array()
      first = end
    }
    return logits
  }

  /// The logits after a prompt.
  func prompt(
    _ tokens: some Collection<Int32>, chunk: Int = 512, _ workspace: inout Workspace
  ) throws -> [Float] {
    try readPrompt(Array(tokens), chunk: chunk, workspace: &workspace).array()
  }
}
