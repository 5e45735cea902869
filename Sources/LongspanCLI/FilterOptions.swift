import ArgumentParser
import Longspan
import LongspanKernels
import LongspanModels

/// What happens to a model's time steps.
struct FilterOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "What happens to the time steps of a Mamba or Mamba-2 model: \(TimeStepPolicyOption.help).",
      valueName: "filter"))
  var filter = "none"

  func policy(_ loaded: any LanguageModel, _ options: ModelOptions) throws(LongspanError)
    -> any TimeStepPolicy
  {
    try options.timeStepPolicy(filter, loaded)
  }
}

extension ModelOptions {
  /// The policy that a `--filter` names, for the model that was loaded of these options.
  func timeStepPolicy(
    _ text: String, _ loaded: any LanguageModel
  ) throws(LongspanError) -> any TimeStepPolicy {
    guard let subject = loaded as? any StateSpaceModel else {
      guard text == "none" else {
        throw LongspanError(
          .unsupported,
          "--filter \(text): a model of architecture \(loaded.architecture) has no time steps to filter")
      }
      return UnfilteredTimeSteps()
    }
    let shape = subject.stateSpaceShape
    let policy = try TimeStepPolicyOption.policy(
      text, trainedLength: subject.trainedContext, layers: shape.layers,
      fingerprint: { () throws(LongspanError) in try fingerprint() })
    try policy.check(shape)
    return policy
  }
}
